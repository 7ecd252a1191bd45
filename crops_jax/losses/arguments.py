"""The arguments that all losses share: the arrays of a batch with their checks, and the options with their defaults."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from crops_jax.labels import Level, SparseLabels

_DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)


class LossInputs(NamedTuple):
    """The arrays of a batch from which a loss is computed; `crops_jax.losses.h_infonce` describes each of them.

    None selects the default: every query has weight 1, every column is a real document, logQ correction is off, and
    nothing is distilled. teacher_scores are those of `crops_jax.losses.distillation_kl`.
    """

    query_embeddings: Float[Array, "queries dim"]
    doc_embeddings: Float[Array, "docs dim"]
    labels: SparseLabels | Int[Array, "queries docs"]
    query_weights: Float[Array, "queries"] | None = None
    doc_mask: Bool[Array, "docs"] | None = None
    doc_log_probabilities: Float[Array, "docs"] | None = None
    teacher_scores: Float[Array, "queries k"] | None = None

    @property
    def scored(self) -> tuple[Float[Array, "..."], ...]:
        """The arrays that the scores are computed from. The loss is NaN if one of their numbers is not finite."""
        return self.query_embeddings, self.doc_embeddings


class ScoreInputs(NamedTuple):
    """The arrays of a batch whose scores are no dot products, such as those of a Poly-encoder.

    scores: the score of every query and document, float32. The other fields are those of `LossInputs`.
    """

    scores: Float[Array, "queries docs"]
    labels: SparseLabels | Int[Array, "queries docs"]
    query_weights: Float[Array, "queries"] | None = None
    doc_mask: Bool[Array, "docs"] | None = None
    doc_log_probabilities: Float[Array, "docs"] | None = None
    teacher_scores: Float[Array, "queries k"] | None = None

    @property
    def scored(self) -> tuple[Float[Array, "..."], ...]:
        """The arrays that the scores are computed from; see `LossInputs.scored`."""
        return (self.scores,)


def validate(name: str, inputs: LossInputs | ScoreInputs) -> None:
    """Raises ValueError if an array breaks a rule; the message names the loss, the rule and the value.

    The values of labels are checked where they are arrays of NumPy. Those of JAX arrays are not read, since they may be
    traced, or be computed by a device that is not waited for.
    """

    def require(condition: bool, rule: str, value: object) -> None:
        if not condition:
            raise ValueError(f"{name}: {rule}, found {value}")

    _validate_types(inputs, require)
    if isinstance(inputs, ScoreInputs):
        scores = inputs.scores
        require(scores.ndim == 2 and scores.size > 0, "scores must be [queries, docs], not empty", scores.shape)
        require(scores.dtype == jnp.float32, "scores must be float32", scores.dtype)
        queries, docs = scores.shape
    else:
        queries, docs = _validate_embeddings(inputs, require)
    labels, query_weights = inputs.labels, inputs.query_weights
    doc_mask, doc_log_probabilities = inputs.doc_mask, inputs.doc_log_probabilities
    if isinstance(labels, SparseLabels):
        for field, array in labels._asdict().items():
            require(array.ndim == 2 and array.shape[0] == queries, f"labels.{field} must be [queries, k]", array.shape)
            require(array.dtype == jnp.int32, f"labels.{field} must be int32", array.dtype)
        require(
            labels.doc_index.shape == labels.level.shape,
            "labels.doc_index and labels.level must have one shape",
            (labels.doc_index.shape, labels.level.shape),
        )
    else:
        require(labels.shape == (queries, docs), f"labels must be [queries, docs] = {(queries, docs)}", labels.shape)
        require(jnp.issubdtype(labels.dtype, jnp.signedinteger), "labels must be signed integers", labels.dtype)
    _validate_labels(labels, docs, require)
    if query_weights is not None:
        require(query_weights.shape == (queries,), f"query_weights must be [{queries}]", query_weights.shape)
    if doc_mask is not None:
        require(doc_mask.shape == (docs,), f"doc_mask must be [{docs}]", doc_mask.shape)
        require(doc_mask.dtype == bool, "doc_mask must be bool", doc_mask.dtype)
    if doc_log_probabilities is not None:
        shape = doc_log_probabilities.shape
        require(shape == (docs,), f"doc_log_probabilities must be [{docs}]", shape)
    teacher_scores = inputs.teacher_scores
    if teacher_scores is not None:
        pairs = (labels.level if isinstance(labels, SparseLabels) else labels).shape
        require(teacher_scores.shape == pairs, f"teacher_scores must be {pairs}, as labels", teacher_scores.shape)
        floating = jnp.issubdtype(teacher_scores.dtype, jnp.floating)
        require(floating, "teacher_scores must be floating-point numbers", teacher_scores.dtype)


def _validate_labels(labels: SparseLabels | Array, docs: int, require: Callable[[bool, str, object], None]) -> None:
    """Checks the levels and the columns that are in arrays of NumPy."""
    level, highest = labels.level if isinstance(labels, SparseLabels) else labels, max(Level)
    if isinstance(level, np.ndarray) and level.size:
        lies = bool(level.min() >= -1 and level.max() <= highest)
        require(lies, f"levels must lie in [-1, {highest}]", [int(level.min()), int(level.max())])
    if isinstance(labels, SparseLabels) and isinstance(index := labels.doc_index, np.ndarray) and index.size:
        lies = bool(index.min() >= -1 and index.max() < docs)
        require(lies, f"labels.doc_index must lie in [-1, {docs - 1}]", [int(index.min()), int(index.max())])


def _validate_types(inputs: LossInputs | ScoreInputs, require: Callable[[bool, str, object], None]) -> None:
    """Checks that every argument is an array, as a list is not."""
    given = inputs._asdict()
    if isinstance(labels := given.pop("labels"), SparseLabels):
        given |= {f"labels.{field}": value for field, value in labels._asdict().items()}
    else:
        given["labels"] = labels
    for field, value in given.items():
        is_array = value is None or isinstance(value, jax.Array | np.ndarray)
        require(is_array, f"{field} must be an array of JAX or NumPy", type(value).__name__)


def _validate_embeddings(inputs: LossInputs, require: Callable[[bool, str, object], None]) -> tuple[int, int]:
    """Returns the numbers of queries and documents."""
    q, d = inputs.query_embeddings, inputs.doc_embeddings
    require(q.ndim == 2 and d.ndim == 2, "embeddings must be [queries, dim] and [docs, dim]", (q.shape, d.shape))
    require(q.shape[1] == d.shape[1], "both embeddings must have the same dim", (q.shape, d.shape))
    require(
        q.dtype == d.dtype and q.dtype in _DTYPES,
        "both embeddings must have one type, float32, bfloat16 or float16",
        (q.dtype, d.dtype),
    )
    require(d.shape[0] > 0 and q.shape[0] > 0, "at least one query and one document are needed", (q.shape, d.shape))
    return q.shape[0], d.shape[0]


def validate_temperature(name: str, temperature: object) -> None:
    """Raises ValueError if the temperature is not a scalar, or a number of Python or NumPy that is not positive.

    The value of a JAX array is not read, since it may be traced, or be computed by a device that is not waited for.
    """
    if not isinstance(temperature, jax.Array | np.ndarray | np.generic | float | int):
        raise ValueError(f"{name}: temperature must be a number, found {type(temperature).__name__}")
    if jnp.ndim(temperature) != 0:
        raise ValueError(f"{name}: temperature must be a scalar, found {jnp.shape(temperature)}")
    if not isinstance(temperature, jax.Array) and not 0 < float(temperature) < float("inf"):
        raise ValueError(f"{name}: temperature must be positive and finite, found {temperature}")


Normalization = Literal["anchors", "queries", "sum"]


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """The options of a loss. The constructor raises ValueError for a field with an invalid value."""

    normalization: Normalization = "anchors"
    """The normalisation of the sum of terms. "anchors" is the weighted mean over all terms of the batch. "queries" is
    the mean over the terms of each query, and then over the queries that have a term. "sum" is the weighted sum."""
    level_weights: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)
    """The weight of a term by the level of its document, for levels 1 to 5; not negative."""
    ignore_margin: float | None = None
    """The margin within which documents of other queries are ignored: those whose score is at least that of the query's
    best positive (level 4 or 5) minus this margin. They are likely false negatives (positive-aware mining of
    NV-Retriever, arXiv 2407.15831; margin of GISTEmbed, arXiv 2402.16829). With None, no document is ignored."""

    def __post_init__(self) -> None:
        if self.normalization not in ("anchors", "queries", "sum"):
            raise ValueError(f"normalization must be 'anchors', 'queries' or 'sum', found {self.normalization!r}")
        levels = max(Level)
        if len(self.level_weights) != levels or not all(0 <= weight < float("inf") for weight in self.level_weights):
            raise ValueError(f"level_weights must be {levels} numbers >= 0, found {self.level_weights}")
        if self.ignore_margin is not None and not abs(self.ignore_margin) < float("inf"):
            raise ValueError(f"ignore_margin must be finite or None, found {self.ignore_margin}")
