"""The operation that computes the level sums of a batch, and the choice of its implementation."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from crops_jax.labels import SparseLabels
from crops_jax.losses.level_sums.dense import dense_sums
from crops_jax.losses.level_sums.streaming import Engine, Plan, named_scores, plan_over, streaming_sums
from crops_jax.losses.level_sums.sums import LOWEST, LevelSums, level_sums_of, margin_threshold, product

Implementation = Literal["dense", "streaming", "pallas", "auto"]

_KERNELS: dict[str, Engine] = {"tpu": "tpu kernels", "gpu": "gpu kernels", "cuda": "gpu kernels"}

# The maximum number of scores (16 MiB in float32) for which "auto" stores the matrix.
_MAX_DENSE_PAIRS = 1 << 22


class Split(NamedTuple):
    """The layout of a batch on a mesh: queries and documents are split in the same way over some of its axes.

    exchange: how the streaming implementation brings the documents to the queries of each device. "gather" stores all
      documents on each device, "ring" passes blocks of documents from device to device, and "auto" gathers if the
      documents and their gradient take at most 1 GiB per device.
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
    """Returns the scores of the named pairs, and the logsumexp of level 0 for each query and temperature.

    Args:
      query_embeddings: the embeddings of the queries.
      doc_embeddings: the embeddings of the documents.
      labels: levels -1 to 5, as SparseLabels or, for "dense" and "auto", as an integer matrix.
      temperatures: positive temperatures.
      implementation: the implementation, by its name.
      doc_mask: True for columns that are real documents.
      doc_log_probabilities: the logarithm of the probability that a batch contains the document. It is subtracted from
        s / t of level 0 and has no derivative.
      ignore_margin: columns of level 0 are ignored if their score is at least that of the query's best positive (level
        4 or 5) minus this margin. Queries without a positive ignore no column.
      split: the layout of the batch on a mesh; None: the batch is on one device, or the compiler decides.
    """
    queries, docs = query_embeddings.shape[0], doc_embeddings.shape[0]
    device = split.mesh.devices.flat[0] if split else jax.devices()[0]
    name = implementation_that_runs(implementation, labels, queries=queries, docs=docs, platform=device.platform)
    if name == "dense":
        return level_sums_of_scores(
            product(query_embeddings, replicated_documents(doc_embeddings, split).T),
            labels,
            temperatures=temperatures,
            doc_mask=doc_mask,
            doc_log_probabilities=doc_log_probabilities,
            ignore_margin=ignore_margin,
        )
    labels, offset = _real_columns(labels, doc_mask, doc_log_probabilities, docs=docs)
    assert isinstance(labels, SparseLabels)
    engine = _KERNELS[device.platform] if name == "pallas" else "tiles"
    plan = _plan(query_embeddings, doc_embeddings, split, engine=engine, device_kind=device.device_kind)
    threshold = None
    if ignore_margin is not None:
        scores = named_scores(plan, query_embeddings, doc_embeddings, labels.doc_index)
        threshold = margin_threshold(scores, labels.level, ignore_margin)
    streamed: Any = streaming_sums(
        plan, query_embeddings, doc_embeddings, temperatures, labels.doc_index, offset, threshold
    )
    return level_sums_of(streamed, labels.level, temperatures)


def level_sums_of_scores(
    scores: Float[Array, "queries docs"],
    labels: SparseLabels | Int[Array, "queries docs"],
    *,
    temperatures: Float[Array, "temperatures"],
    doc_mask: Bool[Array, "docs"] | None = None,
    doc_log_probabilities: Float[Array, "docs"] | None = None,
    ignore_margin: float | None = None,
) -> LevelSums:
    """Returns the level sums of a score matrix by the dense implementation; see `level_sums` for the arguments."""
    labels, offset = _real_columns(labels, doc_mask, doc_log_probabilities, docs=scores.shape[1])
    raw = dense_sums(scores, labels, temperatures, offset, ignore_margin)
    return level_sums_of(raw, labels.level if isinstance(labels, SparseLabels) else labels, temperatures)


def replicated_documents(doc_embeddings: Float[Array, "docs dim"], split: Split | None) -> Float[Array, "docs dim"]:
    """Returns the documents of a batch with all of them on every device, because every query needs every document.

    They are gathered once, here, so that their gradient is summed and scattered once.
    """
    if split is None:
        return doc_embeddings
    return jax.lax.with_sharding_constraint(doc_embeddings, NamedSharding(split.mesh, PartitionSpec()))


def implementation_that_runs(
    implementation: Implementation,
    labels: SparseLabels | Int[Array, "queries docs"],
    *,
    queries: int,
    docs: int,
    platform: str | None = None,
) -> Literal["dense", "streaming", "pallas"]:
    """Returns the implementation that a loss runs for these arguments.

    "auto" selects "dense" for a label matrix and for batches of up to 4 M pairs (16 MiB of scores), because it starts
    fewer kernels and computes nothing twice, and "streaming" for larger batches. It never selects "pallas", because its
    kernels have not yet been compared with streaming on any device; benchmarks/loss.py measures both.

    Args:
      implementation: the implementation, by its name.
      labels: the labels of the batch.
      queries: the number of queries.
      docs: the number of documents.
      platform: the platform of the devices; by default that of JAX.

    Raises:
      ValueError: the named implementation is unknown or cannot run for these arguments.
    """
    sparse = isinstance(labels, SparseLabels)
    if implementation == "auto":
        return "streaming" if sparse and queries * docs > _MAX_DENSE_PAIRS else "dense"
    if implementation == "dense":
        return "dense"
    if implementation not in ("streaming", "pallas"):
        raise ValueError(f"loss: no implementation {implementation!r}; choose 'dense', 'streaming', 'pallas' or 'auto'")
    if not sparse:
        raise ValueError(
            f"loss: implementation={implementation!r} requires SparseLabels, found a dense label matrix; "
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
    """Returns the plan for a batch of these shapes: its devices and the parts that they compute."""
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


def _real_columns(
    labels: SparseLabels | Int[Array, "queries docs"],
    doc_mask: Bool[Array, "docs"] | None,
    doc_log_probabilities: Float[Array, "docs"] | None,
    *,
    docs: int,
) -> tuple[SparseLabels | Int[Array, "queries docs"], Float[Array, "docs"]]:
    """Returns the labels of real documents, and what is added to z of level 0: LOWEST for the other columns."""
    mask = jnp.ones(docs, bool) if doc_mask is None else doc_mask
    offset = jnp.zeros(docs, jnp.float32) if doc_log_probabilities is None else -doc_log_probabilities
    offset = jax.lax.stop_gradient(jnp.where(mask, offset.astype(jnp.float32), LOWEST))
    return _labels_of_real_columns(labels, mask), offset


def _labels_of_real_columns(
    labels: SparseLabels | Int[Array, "queries docs"], mask: Bool[Array, "docs"]
) -> SparseLabels | Int[Array, "queries docs"]:
    """Returns the labels without those of columns that are no real documents.

    The result has at least one column of entries, so that no maximum is taken over an empty axis.
    """
    if not isinstance(labels, SparseLabels):
        return jnp.where(mask[None, :], labels, 0).astype(jnp.int32)
    if labels.level.shape[1] == 0:
        empty = jnp.full((labels.level.shape[0], 1), -1, jnp.int32)
        labels = SparseLabels(empty, empty)
    named = (labels.level != 0) & (labels.doc_index >= 0) & mask[jnp.maximum(labels.doc_index, 0)]
    return SparseLabels(jnp.where(named, labels.doc_index, -1), jnp.where(named, labels.level, 0))
