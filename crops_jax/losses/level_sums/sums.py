"""The sums of a batch in two forms: the form that the implementations return and the form that the losses read."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from crops_jax.labels import Level

# This number represents minus infinity. It is finite, so that the difference of two such numbers is not NaN.
LOWEST = -1e30


class RawSums(NamedTuple):
    """The results of an implementation. Level 0 of a row is all real columns that the row neither names nor ignores.

    greatest: the greatest score s of level 0; LOWEST / 2 if the row has no level 0. It has no derivative, because it is
      only a constant that is subtracted in the row.
    log_total: for each temperature t, the log of the sum over level 0 of e^((s - greatest) / t + offset of the column);
      LOWEST if the row has no level 0. It is differentiable in the embeddings and in t.
    named: the scores of the named pairs, differentiable; entries whose doc_index is -1 have arbitrary values.
    ignored: the number of columns of level 0 that ignore_margin ignores.
    """

    greatest: Float[Array, "queries"]
    log_total: Float[Array, "queries temperatures"]
    named: Float[Array, "queries k"]
    ignored: Int32[Array, "queries"]


class LevelSums(NamedTuple):
    """The sums that a loss reads. From all scores of a row, a constant is subtracted: the greatest score of the row.

    The constant changes no loss. Without it, the derivative in temperature, which is a sum of scores with weights that
    add up to 0, would lose three digits if the scores are large and nearly equal.

    level_0: for each temperature t, the log of the sum over level 0 of e^(s / t); LOWEST if the row has no level 0.
    greatest: the greatest s of level 0, without derivative; LOWEST if the row has no level 0.
    score: s of the named pairs; 0 in positions without a pair.
    level: the level of each named pair: 1 to 5, or -1 if it is ignored; 0 in positions without a pair.
    ignored: the number of columns of level 0 that ignore_margin ignores.
    """

    level_0: Float[Array, "queries temperatures"]
    greatest: Float[Array, "queries"]
    score: Float[Array, "queries k"]
    level: Int32[Array, "queries k"]
    ignored: Int32[Array, "queries"]


def level_sums_of(
    raw: RawSums, level: Int32[Array, "queries k"], temperatures: Float[Array, "temperatures"]
) -> LevelSums:
    """Returns the sums in the form that the losses read; `level` must be 0 in positions without a pair."""
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
    """Returns the threshold of each query, computed from the scores of its named pairs; it has no derivative.

    A query ignores the columns of level 0 whose score is at least the threshold.
    """
    best = jnp.where(level >= Level.POSITIVE, scores, LOWEST).max(axis=1)
    return jax.lax.stop_gradient(jnp.where(best > LOWEST / 2, best - margin, -LOWEST))


def product(left: Float[Array, "m d"], right: Float[Array, "d n"]) -> Float[Array, "m n"]:
    """Returns left @ right: float32 in full precision, narrower types with float32 sums."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
