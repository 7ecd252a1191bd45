"""The sum of the terms of a loss. Every loss in this package is a weighted sum of terms, a few for each query."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from crops_jax.losses.arguments import LossInputs, LossOptions, ScoreInputs, validate
from crops_jax.losses.level_sums.api import Implementation, Split, level_sums, level_sums_of_scores
from crops_jax.losses.level_sums.sums import LOWEST, LevelSums


class Terms(NamedTuple):
    """The terms of each query.

    loss: the loss of each term; 0 in positions without a term. A position can also hold the mean of several terms that
      belong to one document.
    counted: the mask of the positions that have a term, or the number of terms of each position.
    level: the level of the term's document, 1 to 5.
    """

    loss: Float[Array, "queries terms"]
    counted: Bool[Array, "queries terms"] | Int32[Array, "queries terms"]
    level: Int32[Array, "queries terms"]


Formula = Callable[[LevelSums, Float[Array, "temperatures"]], Terms]


def batch_loss(
    name: str,
    formula: Formula,
    inputs: LossInputs | ScoreInputs,
    *,
    temperatures: float | Float[Array, ""] | Float[Array, "temperatures"],
    implementation: Implementation = "auto",
    options: LossOptions | None = None,
    split: Split | None = None,
) -> tuple[Float[Array, ""], LevelSums]:
    """Returns the loss of a batch, by a formula for its terms, and the sums from which it was computed.

    The arguments are those of `crops_jax.losses.h_infonce`, or a score matrix. If an embedding, a score or a
    temperature is not finite, the loss is NaN.
    """
    validate(name, inputs)
    options = LossOptions() if options is None else options
    temperatures = jnp.atleast_1d(jnp.asarray(temperatures, jnp.float32))
    sums = sums_of(
        inputs, temperatures, implementation=implementation, ignore_margin=options.ignore_margin, split=split
    )
    return mean_of_terms(formula(sums, temperatures), inputs, temperatures, options), sums


def sums_of(
    inputs: LossInputs | ScoreInputs,
    temperatures: Float[Array, "temperatures"],
    *,
    implementation: Implementation,
    ignore_margin: float | None,
    split: Split | None,
) -> LevelSums:
    """Returns the level sums of a batch. Those of a score matrix have one implementation, the dense one."""
    common: dict[str, Any] = {
        "temperatures": temperatures,
        "doc_mask": inputs.doc_mask,
        "doc_log_probabilities": inputs.doc_log_probabilities,
        "ignore_margin": ignore_margin,
    }
    if isinstance(inputs, ScoreInputs):
        return level_sums_of_scores(inputs.scores, inputs.labels, **common)
    embeddings = inputs.query_embeddings, inputs.doc_embeddings
    return level_sums(*embeddings, inputs.labels, implementation=implementation, split=split, **common)


def mean_of_terms(
    terms: Terms, inputs: LossInputs | ScoreInputs, temperatures: Float[Array, "temperatures"], options: LossOptions
) -> Float[Array, ""]:
    """Returns the loss of a batch from its terms. If an embedding or temperature is not finite, the loss is NaN."""
    if inputs.query_weights is None:
        weights = jnp.ones(inputs.scored[0].shape[0], jnp.float32)
    else:
        weights = inputs.query_weights.astype(jnp.float32)
    loss = _normalised(terms, jax.lax.stop_gradient(weights), options)
    # Without this check, a sum that is NaN would be treated as empty, and the loss would be that of a batch without
    # anchors.
    finite = _all_finite(*inputs.scored, temperatures)
    return jnp.where(finite, loss, jnp.nan)


def strictly_below(
    sums: LevelSums, temperature: Float[Array, ""], *, which: int = 0, levels: int = 5
) -> Float[Array, "queries levels"]:
    """Returns the log of the sum of e^(s / t) over the columns of levels below l, for each l from 0 to `levels`.

    Ignored columns are not in the sums. `which` is the index of the temperature in `sums`.
    """
    below = [jnp.full_like(sums.level_0[:, which], LOWEST), sums.level_0[:, which]]
    for level in range(1, levels):
        below.append(jnp.logaddexp(below[-1], of_level(sums, temperature, level)))
    return jnp.stack(below, axis=1)


def of_level(sums: LevelSums, temperature: Float[Array, ""], level: int) -> Float[Array, "queries"]:
    """Returns the log of the sum of e^(s / t) over the named pairs of a level; LOWEST for a query without a pair."""
    selected = sums.level == level
    total = jax.nn.logsumexp(jnp.where(selected, sums.score / temperature, LOWEST), axis=1)
    return jnp.where(selected.any(axis=1), total, LOWEST)


def contrast(
    chosen: Float[Array, "queries terms"], against: Float[Array, "queries terms"], counted: Bool[Array, "queries terms"]
) -> Float[Array, "queries terms"]:
    """Returns - log [ e^chosen / (e^chosen + e^against) ] in the positions that are counted, and 0 in all others."""
    # The inner where replaces the positions without a term before softplus. Otherwise their derivative would be
    # 0 * infinity.
    return jnp.where(counted, jax.nn.softplus(jnp.where(counted, against - chosen, 0.0)), 0.0)


def _normalised(terms: Terms, query_weights: Float[Array, "queries"], options: LossOptions) -> Float[Array, ""]:
    weights = terms.counted.astype(jnp.float32)
    if any(weight != 1 for weight in options.level_weights):
        by_level = jnp.asarray((0.0, *options.level_weights), jnp.float32)
        weights *= by_level[jnp.maximum(terms.level, 0)]
    if options.normalization == "queries":
        of_query = weights.sum(axis=1)
        loss = _ratio((terms.loss * weights).sum(axis=1), of_query)
        return _ratio((loss * query_weights).sum(), (query_weights * (of_query > 0)).sum())
    weights *= query_weights[:, None]
    total = (terms.loss * weights).sum()
    return total if options.normalization == "sum" else _ratio(total, weights.sum())


def _all_finite(*arrays: Array) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(array).all() for array in arrays]).all()


def _ratio(numerator: Array, denominator: Array) -> Array:
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1.0), 0.0)
