"""The sums of a batch in the form that the losses read, and the form in which the implementations leave them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from crops_jax.labels import Level

# Stands for minus infinity: finite, so that no difference of two of them is NaN.
LOWEST = -1e30


class RawSums(NamedTuple):
    """The results of an implementation. Level 0 is every real column that a row neither names nor ignores.

    greatest: the greatest score s of level 0; without derivative, as a constant of the row may be. LOWEST / 2 where
      the row has no level 0.
    log_total: for each temperature t, log of the sum over level 0 of e^((s - greatest) / t + offset of the column);
      LOWEST where the row has no level 0. Differentiable in the embeddings and in t.
    named: scores of the named pairs, differentiable; anything where doc_index is -1.
    ignored: columns of level 0 that ignore_margin took out.
    """

    greatest: Float[Array, "queries"]
    log_total: Float[Array, "queries temperatures"]
    named: Float[Array, "queries k"]
    ignored: Int32[Array, "queries"]


class LevelSums(NamedTuple):
    """All that a loss reads. A constant of each row, its greatest score, is taken off everywhere.

    The constant changes no loss. Without it the derivative in temperature, a sum of scores whose weights add up to 0,
    would lose three digits where the scores are large and alike.

    level_0: for each temperature t, log of the sum over level 0 of e^(s / t); LOWEST where there is none.
    greatest: the greatest s of level 0, without derivative; LOWEST where there is none.
    score: s of the named pairs; 0 where there is no pair.
    level: -1 ignored, 1 to 5; 0 where there is no pair.
    ignored: columns of level 0 that ignore_margin took out.
    """

    level_0: Float[Array, "queries temperatures"]
    greatest: Float[Array, "queries"]
    score: Float[Array, "queries k"]
    level: Int32[Array, "queries k"]
    ignored: Int32[Array, "queries"]


def level_sums_of(
    raw: RawSums, level: Int32[Array, "queries k"], temperatures: Float[Array, "temperatures"]
) -> LevelSums:
    """The sums as the losses read them; level is 0 where there is no pair."""
    has_level_0 = raw.log_total[:, 0] > LOWEST / 2
    greatest = jnp.where(has_level_0, raw.greatest, LOWEST)
    constant = jnp.maximum(greatest, jnp.where(level > 0, raw.named, LOWEST).max(axis=1))
    constant = jax.lax.stop_gradient(jnp.where(constant > LOWEST / 2, constant, 0.0))
    shift = jnp.where(has_level_0, raw.greatest - constant, 0.0)
    level_0 = shift[:, None] / temperatures[None, :] + raw.log_total
    return LevelSums(
        level_0=jnp.where(has_level_0[:, None], level_0, LOWEST),
        greatest=jax.lax.stop_gradient(jnp.where(has_level_0, shift, LOWEST)),
        score=jnp.where(level != 0, raw.named - constant[:, None], 0.0),
        level=level,
        ignored=raw.ignored,
    )


def margin_threshold(
    scores: Float[Array, "queries k"], level: Int32[Array, "queries k"], margin: float
) -> Float[Array, "queries"]:
    """The score from which on a query ignores columns of level 0, from the scores of its named pairs; constant."""
    best = jnp.where(level >= Level.POSITIVE, scores, LOWEST).max(axis=1)
    return jax.lax.stop_gradient(jnp.where(best > LOWEST / 2, best - margin, -LOWEST))


def product(left: Float[Array, "m d"], right: Float[Array, "d n"]) -> Float[Array, "m n"]:
    """float32 in full precision, narrower types with float32 sums."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
