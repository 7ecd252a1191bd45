"""H-InfoNCE (CroPS, arXiv 2511.15443): what it computes, what it takes, which implementation runs."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from crops_jax.labels import SparseLabels, dense_labels
from crops_jax.losses.hierarchical_infonce.dense import dense_h_infonce
from crops_jax.losses.hierarchical_infonce.streaming import streaming_h_infonce

Implementation = Literal["dense", "streaming", "pallas", "auto"]

_DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)
# Above so many scores (16 MiB in float32) "auto" does not write the matrix out.
_MOST_DENSE_PAIRS = 1 << 22


def h_infonce(
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    labels: SparseLabels | Int[Array, "queries docs"],
    *,
    temperature: float | Float[Array, ""],
    implementation: Implementation = "auto",
    query_weights: Float[Array, "queries"] | None = None,
    doc_mask: Bool[Array, "docs"] | None = None,
) -> Float[Array, ""]:
    """Hierarchical InfoNCE: every anchor against all documents of strictly lower levels.

        z_ij = <q_i, d_j> / temperature
        loss_ij = - log [ e^z_ij / ( e^z_ij + sum over k with l_ik < l_ij of e^z_ik ) ]

    averaged over the anchors, weighted by query_weights: pairs of level l_ij >= 1 with at least one unignored
    document of a strictly lower level. Documents of the same or a higher level and ignored ones (level -1) enter
    neither the sum nor the count. Equation 6 of CroPS (arXiv 2511.15443).

    Args:
      query_embeddings: float32, bfloat16 or float16; nothing is normalised here, the scores are plain dot products.
      doc_embeddings: of the same type.
      labels: levels -1 to 5, as SparseLabels or, for "dense" and "auto", as an integer matrix.
      temperature: positive scalar, never clipped here.
      implementation: "dense" writes the score matrix out and is the reference; "streaming" is exact too and never
        holds more than a tile of it; "pallas" is a kernel; "auto" takes the one that fits (see
        `implementation_that_runs`). One that is named runs or raises, and never another one in its place.
      query_weights: non-negative weight of each query, 1 by default. No gradient flows into it.
      doc_mask: True where a column is a real document; padding and second copies are False. All real by default.

    Returns:
      float32 scalar, differentiable in both embeddings and in temperature. Without anchors (or all of weight 0) it
      is 0 with zero gradients. float32 embeddings are multiplied with precision HIGHEST, narrower ones are summed in
      float32.

    Raises:
      ValueError: shapes or types do not fit each other, or the named implementation cannot run here.
    """
    _validate(query_embeddings, doc_embeddings, labels, temperature, query_weights, doc_mask)
    queries, docs = query_embeddings.shape[0], doc_embeddings.shape[0]
    name = implementation_that_runs(implementation, labels, queries=queries, docs=docs)
    temperature = jnp.asarray(temperature, jnp.float32)
    weights = jnp.ones(queries, jnp.float32) if query_weights is None else query_weights.astype(jnp.float32)
    mask = jnp.ones(docs, bool) if doc_mask is None else doc_mask
    if name == "streaming":
        assert isinstance(labels, SparseLabels)
        return streaming_h_infonce(query_embeddings, doc_embeddings, labels, temperature, weights, mask)
    matrix = dense_labels(labels, docs) if isinstance(labels, SparseLabels) else labels
    return dense_h_infonce(query_embeddings, doc_embeddings, matrix, temperature, weights, mask)


def implementation_that_runs(
    implementation: Implementation, labels: SparseLabels | Int[Array, "queries docs"], *, queries: int, docs: int
) -> Literal["dense", "streaming"]:
    """The implementation that `h_infonce` runs for these arguments. Raises ValueError when the named one cannot.

    "auto" is dense for a label matrix and for batches of up to 4 M pairs, and streaming beyond.
    """
    sparse = isinstance(labels, SparseLabels)
    if implementation == "auto":
        return "streaming" if sparse and queries * docs > _MOST_DENSE_PAIRS else "dense"
    if implementation == "dense":
        return "dense"
    if implementation not in ("streaming", "pallas"):
        raise ValueError(
            f"h_infonce: no implementation {implementation!r}; there are 'dense', 'streaming', 'pallas' and 'auto'"
        )
    if not sparse:
        raise ValueError(
            f"h_infonce: implementation={implementation!r} takes SparseLabels and was given a dense label matrix; "
            "pass SparseLabels, or implementation='dense' or 'auto'"
        )
    if implementation == "pallas":
        raise ValueError(
            f"h_infonce: implementation='pallas' cannot run on {jax.default_backend()}: this version has no kernel; "
            "use 'streaming' (exact, linear memory), 'dense' or 'auto'"
        )
    return "streaming"


def _validate(query_embeddings, doc_embeddings, labels, temperature, query_weights, doc_mask) -> None:
    q, d = query_embeddings, doc_embeddings
    _require(q.ndim == 2 and d.ndim == 2, "embeddings must be [queries, dim] and [docs, dim]", (q.shape, d.shape))
    _require(q.shape[1] == d.shape[1], "both embeddings must have the same dim", (q.shape, d.shape))
    _require(
        q.dtype == d.dtype and q.dtype in _DTYPES,
        "both embeddings must be float32, bfloat16 or float16 alike",
        (q.dtype, d.dtype),
    )
    _require(d.shape[0] > 0 and q.shape[0] > 0, "at least one query and one document are needed", (q.shape, d.shape))
    queries, docs = q.shape[0], d.shape[0]
    if isinstance(labels, SparseLabels):
        for name, array in labels._asdict().items():
            _require(array.ndim == 2 and array.shape[0] == queries, f"labels.{name} must be [queries, k]", array.shape)
            _require(array.dtype == jnp.int32, f"labels.{name} must be int32", array.dtype)
        _require(
            labels.doc_index.shape == labels.level.shape,
            "labels.doc_index and labels.level must have one shape",
            (labels.doc_index.shape, labels.level.shape),
        )
    else:
        _require(labels.shape == (queries, docs), f"labels must be [queries, docs] = {(queries, docs)}", labels.shape)
        _require(jnp.issubdtype(labels.dtype, jnp.signedinteger), "labels must be signed integers", labels.dtype)
    _require(jnp.ndim(temperature) == 0, "temperature must be a scalar", jnp.shape(temperature))
    if query_weights is not None:
        _require(query_weights.shape == (queries,), f"query_weights must be [{queries}]", query_weights.shape)
    if doc_mask is not None:
        _require(doc_mask.shape == (docs,), f"doc_mask must be [{docs}]", doc_mask.shape)
        _require(doc_mask.dtype == bool, "doc_mask must be bool", doc_mask.dtype)


def _require(condition: bool, rule: str, found: object) -> None:
    if not condition:
        raise ValueError(f"h_infonce: {rule}, found {found}")
