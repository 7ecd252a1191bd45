"""The operation: what goes in, which implementation runs."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from crops_jax.labels import SparseLabels
from crops_jax.losses.level_sums.dense import dense_sums
from crops_jax.losses.level_sums.streaming import Engine, Plan, named_scores, plan_over, streaming_sums
from crops_jax.losses.level_sums.sums import LOWEST, LevelSums, level_sums_of, margin_threshold

Implementation = Literal["dense", "streaming", "pallas", "auto"]

_KERNELS: dict[str, Engine] = {"tpu": "tpu kernels", "gpu": "gpu kernels", "cuda": "gpu kernels"}

# Above so many scores (16 MiB in float32) "auto" does not write the matrix out.
_MOST_DENSE_PAIRS = 1 << 22


class Split(NamedTuple):
    """The layout of a batch on a mesh: queries and documents are split alike over some of its axes.

    exchange: how every query meets every document in the streaming implementation. "gather" holds all documents on
      each device, "ring" passes them on block by block, "auto" gathers while they take up to 1 GiB a device.
    """

    mesh: Mesh
    axes: tuple[str, ...] = ("data",)
    exchange: Literal["auto", "gather", "ring"] = "auto"


def level_sums(
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    labels: SparseLabels | Int[Array, "queries docs"],
    *,
    temperatures: Float[Array, "temperatures"],
    implementation: Implementation = "auto",
    doc_mask: Bool[Array, "docs"] | None = None,
    doc_log_probabilities: Float[Array, "docs"] | None = None,
    ignore_margin: float | None = None,
    split: Split | None = None,
) -> LevelSums:
    """Scores of the named pairs, and for each query and temperature the logsumexp of level 0.

    Args:
      labels: levels -1 to 5, as SparseLabels or, for "dense" and "auto", as an integer matrix.
      temperatures: positive.
      doc_mask: True where a column is a real document.
      doc_log_probabilities: logarithm of the probability that a batch holds the document; subtracted from s / t of
        level 0. Without derivative.
      ignore_margin: columns of level 0 whose score is at least that of the query's best positive (level 4 or 5) less
        this margin are ignored. Queries without a positive ignore none.
      split: where the batch lies; None: on one device, or left to the compiler.
    """
    queries, docs = query_embeddings.shape[0], doc_embeddings.shape[0]
    device = split.mesh.devices.flat[0] if split else jax.devices()[0]
    name = implementation_that_runs(implementation, labels, queries=queries, docs=docs, platform=device.platform)
    mask = jnp.ones(docs, bool) if doc_mask is None else doc_mask
    offset = jnp.zeros(docs, jnp.float32) if doc_log_probabilities is None else -doc_log_probabilities
    offset = jax.lax.stop_gradient(jnp.where(mask, offset.astype(jnp.float32), LOWEST))
    labels = _real(labels, mask)
    level = labels.level if isinstance(labels, SparseLabels) else labels
    if name == "dense":
        if split is not None:
            # All documents meet all queries: gathered once here, their gradient is summed and scattered once.
            everywhere = NamedSharding(split.mesh, PartitionSpec())
            doc_embeddings = jax.lax.with_sharding_constraint(doc_embeddings, everywhere)
        raw = dense_sums(query_embeddings, doc_embeddings, labels, temperatures, offset, ignore_margin)
        return level_sums_of(raw, level, temperatures)
    assert isinstance(labels, SparseLabels)
    engine = _KERNELS[device.platform] if name == "pallas" else "tiles"
    plan = _plan(query_embeddings, doc_embeddings, split, engine=engine, device_kind=device.device_kind)
    threshold = None
    if ignore_margin is not None:
        scores = named_scores(plan, query_embeddings, doc_embeddings, labels.doc_index)
        threshold = margin_threshold(scores, level, ignore_margin)
    streamed: Any = streaming_sums(
        plan, query_embeddings, doc_embeddings, temperatures, labels.doc_index, offset, threshold
    )
    return level_sums_of(streamed, level, temperatures)


def implementation_that_runs(
    implementation: Implementation,
    labels: SparseLabels | Int[Array, "queries docs"],
    *,
    queries: int,
    docs: int,
    platform: str | None = None,
) -> Literal["dense", "streaming", "pallas"]:
    """The implementation that a loss runs for these arguments. Raises ValueError when the named one cannot.

    "auto" is dense for a label matrix and for batches of up to 4 M pairs (16 MiB of scores: fewer kernels to start, and
    nothing to compute twice), and streaming beyond. It never takes the kernels: on no device has one been measured
    against streaming yet (benchmarks/loss.py does it where there is one). platform: of the devices, by default those of
    JAX.
    """
    sparse = isinstance(labels, SparseLabels)
    if implementation == "auto":
        return "streaming" if sparse and queries * docs > _MOST_DENSE_PAIRS else "dense"
    if implementation == "dense":
        return "dense"
    if implementation not in ("streaming", "pallas"):
        raise ValueError(
            f"loss: no implementation {implementation!r}; there are 'dense', 'streaming', 'pallas' and 'auto'"
        )
    if not sparse:
        raise ValueError(
            f"loss: implementation={implementation!r} takes SparseLabels and was given a dense label matrix; "
            "pass SparseLabels, or implementation='dense' or 'auto'"
        )
    platform = platform or jax.default_backend()
    if implementation == "pallas" and platform not in _KERNELS:
        raise ValueError(
            f"loss: implementation='pallas' cannot run on {platform}: its kernels are for TPU and NVIDIA GPUs; use "
            "'streaming' (exact, linear memory), 'dense' or 'auto'"
        )
    return implementation


def _plan(
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    split: Split | None,
    *,
    engine: Engine,
    device_kind: str,
) -> Plan:
    """Returns the devices and the parts on which a batch of these shapes is computed."""
    queries, dim = query_embeddings.shape
    return plan_over(
        split and split.mesh,
        split.axes if split else (),
        queries=queries,
        docs=doc_embeddings.shape[0],
        dim=dim,
        itemsize=doc_embeddings.dtype.itemsize,
        exchange=split.exchange if split else "auto",
        engine=engine,
        device_kind=device_kind,
    )


def _real(
    labels: SparseLabels | Int[Array, "queries docs"], mask: Bool[Array, "docs"]
) -> SparseLabels | Int[Array, "queries docs"]:
    """Labels of real columns only; at least one column of entries, so that no maximum is of nothing."""
    if not isinstance(labels, SparseLabels):
        return jnp.where(mask[None, :], labels, 0).astype(jnp.int32)
    if labels.level.shape[1] == 0:
        empty = jnp.full((labels.level.shape[0], 1), -1, jnp.int32)
        labels = SparseLabels(empty, empty)
    named = (labels.level != 0) & (labels.doc_index >= 0) & mask[jnp.maximum(labels.doc_index, 0)]
    return SparseLabels(jnp.where(named, labels.doc_index, -1), jnp.where(named, labels.level, 0))
