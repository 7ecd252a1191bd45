"""The scores and levels of all pairs of a query and a document in a batch, and the loss of a formula over them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from crops_jax.labels import IGNORE, SparseLabels, dense_labels
from crops_jax.losses.arguments import LossInputs, LossOptions, ScoreInputs, validate, validate_temperature
from crops_jax.losses.level_sums.api import Implementation, Split, replicated_documents
from crops_jax.losses.level_sums.sums import LevelSums, margin_threshold, product
from crops_jax.losses.terms import Terms, mean_of_terms, sums_of


class ScoredBatch(NamedTuple):
    """The whole score matrix of a batch, and the named pairs of each query, which are those whose level is not 0.

    score: the score s of each query and document.
    level: the level of each pair, 0 to 5; -1 if the pair is ignored, also by ignore_margin, or the column is no
      document.
    anchor_column: the columns of the named pairs; 0 in positions without a pair.
    anchor_level: the levels of the named pairs; 0 in positions without a pair.
    log_probability: the log of the probability that a batch contains the document; None without logQ correction.
    """

    score: Float[Array, "queries docs"]
    level: Int32[Array, "queries docs"]
    anchor_column: Int32[Array, "queries k"]
    anchor_level: Int32[Array, "queries k"]
    log_probability: Float[Array, "docs"] | None

    def of_anchors(self, values: Float[Array, "queries docs"]) -> Float[Array, "queries k"]:
        """Returns the values at the columns of the named pairs."""
        return jnp.take_along_axis(values, self.anchor_column, axis=1)


PairFormula = Callable[[ScoredBatch, Float[Array, ""]], Terms]


def pairwise_loss(
    name: str,
    formula: PairFormula,
    inputs: LossInputs | ScoreInputs,
    *,
    temperature: float | Float[Array, ""],
    implementation: Implementation = "auto",
    options: LossOptions | None = None,
    split: Split | None = None,
) -> tuple[Float[Array, ""], LevelSums]:
    """Returns the loss of a batch, by a formula for its terms, and the sums for its statistics.

    The memory is O(queries * docs): each device stores the scores of its queries and all documents. The arguments are
    those of `crops_jax.losses.h_infonce`. If an embedding or temperature is not finite, the loss is NaN.

    Raises:
      ValueError: shapes or types are not compatible, or the implementation is neither "dense" nor "auto".
    """
    validate_temperature(name, temperature)
    validate(name, inputs)
    require_dense(name, implementation)
    options = LossOptions() if options is None else options
    t = jnp.asarray(temperature, jnp.float32)
    # The statistics are those of plain scores, also when the loss has a logQ correction.
    plain = inputs._replace(doc_log_probabilities=None)
    sums = sums_of(plain, t[None], implementation="dense", ignore_margin=options.ignore_margin, split=split)
    terms = formula(_scored(inputs, options.ignore_margin, split), t)
    return mean_of_terms(terms, inputs, t[None], options), sums


def require_dense(name: str, implementation: Implementation) -> None:
    """Raises ValueError if the implementation of a loss in this package is neither "dense" nor "auto"."""
    if implementation not in ("dense", "auto"):
        raise ValueError(
            f"{name}: there is no implementation {implementation!r} of a loss that needs the whole score matrix; use "
            "'dense' or 'auto'"
        )


def _scored(inputs: LossInputs | ScoreInputs, ignore_margin: float | None, split: Split | None) -> ScoredBatch:
    if isinstance(inputs, ScoreInputs):
        score = inputs.scores
    else:
        score = product(inputs.query_embeddings, replicated_documents(inputs.doc_embeddings, split).T)
    labels, docs = inputs.labels, score.shape[1]
    level = dense_labels(labels, docs) if isinstance(labels, SparseLabels) else labels.astype(jnp.int32)
    if inputs.doc_mask is not None:
        level = jnp.where(inputs.doc_mask[None, :], level, IGNORE)
    if ignore_margin is not None:
        near = score >= margin_threshold(score, level, ignore_margin)[:, None]
        level = jnp.where((level == 0) & near, IGNORE, level)
    if isinstance(labels, SparseLabels):
        column = jnp.maximum(labels.doc_index, 0)
        anchor_level = jnp.where(labels.doc_index >= 0, jnp.take_along_axis(level, column, axis=1), 0)
    else:
        column, anchor_level = jnp.broadcast_to(jnp.arange(docs, dtype=jnp.int32)[None, :], level.shape), level
    log_probability = inputs.doc_log_probabilities
    if log_probability is not None:
        log_probability = jax.lax.stop_gradient(log_probability.astype(jnp.float32))
    return ScoredBatch(score, level, column, anchor_level, log_probability)
