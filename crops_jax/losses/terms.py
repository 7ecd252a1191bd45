"""The sum of a loss's terms: every loss here is a weighted sum of terms, a few for each query."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from crops_jax.losses.arguments import LossInputs, LossOptions, validate
from crops_jax.losses.level_sums.api import Implementation, Split, level_sums
from crops_jax.losses.level_sums.sums import LOWEST, LevelSums


class Terms(NamedTuple):
    """The terms of each query.

    loss: of each term; 0 where there is none.
    counted: whether there is one.
    level: of the document that the term is about, 1 to 5.
    """

    loss: Float[Array, "queries terms"]
    counted: Bool[Array, "queries terms"]
    level: Int32[Array, "queries terms"]


Formula = Callable[[LevelSums, Float[Array, "temperatures"]], Terms]


def batch_loss(
    name: str,
    formula: Formula,
    inputs: LossInputs,
    *,
    temperatures: float | Float[Array, ""] | Float[Array, "temperatures"],
    implementation: Implementation = "auto",
    options: LossOptions | None = None,
    split: Split | None = None,
) -> tuple[Float[Array, ""], LevelSums]:
    """The loss of a batch by the formula for its terms, and the sums that it was made of.

    Arguments as of `crops_jax.losses.h_infonce`. Embeddings or temperatures that are not finite give NaN.
    """
    validate(name, inputs)
    options = LossOptions() if options is None else options
    temperatures = jnp.atleast_1d(jnp.asarray(temperatures, jnp.float32))
    sums = level_sums(
        inputs.query_embeddings,
        inputs.doc_embeddings,
        inputs.labels,
        temperatures=temperatures,
        implementation=implementation,
        doc_mask=inputs.doc_mask,
        doc_log_probabilities=inputs.doc_log_probabilities,
        ignore_margin=options.ignore_margin,
        split=split,
    )
    if inputs.query_weights is None:
        weights = jnp.ones(inputs.query_embeddings.shape[0], jnp.float32)
    else:
        weights = inputs.query_weights.astype(jnp.float32)
    loss = _normalised(formula(sums, temperatures), jax.lax.stop_gradient(weights), options)
    # A sum of NaN would pass for an empty one, and the loss for that of a batch without anchors.
    finite = _all_finite(inputs.query_embeddings, inputs.doc_embeddings, temperatures)
    return jnp.where(finite, loss, jnp.nan), sums


def strictly_below(
    sums: LevelSums, temperature: Float[Array, ""], *, which: int = 0, levels: int = 5
) -> Float[Array, "queries levels"]:
    """Returns, for l = 0 to `levels`, the log of the sum of e^(s / t) over all unignored columns of levels below l."""
    below = [jnp.full_like(sums.level_0[:, which], LOWEST), sums.level_0[:, which]]
    for level in range(1, levels):
        below.append(jnp.logaddexp(below[-1], of_level(sums, temperature, level)))
    return jnp.stack(below, axis=1)


def of_level(sums: LevelSums, temperature: Float[Array, ""], level: int) -> Float[Array, "queries"]:
    """Log of the sum of e^(s / t) over the named pairs of a level; LOWEST where there is none."""
    here = sums.level == level
    total = jax.nn.logsumexp(jnp.where(here, sums.score / temperature, LOWEST), axis=1)
    return jnp.where(here.any(axis=1), total, LOWEST)


def contrast(
    chosen: Float[Array, "queries terms"], against: Float[Array, "queries terms"], counted: Bool[Array, "queries terms"]
) -> Float[Array, "queries terms"]:
    """- log of e^chosen / (e^chosen + e^against) where counted, else 0."""
    # The inner where keeps what is no term out of softplus, whose derivative would otherwise be 0 * infinity.
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
