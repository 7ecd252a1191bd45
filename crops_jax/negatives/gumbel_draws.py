"""Draws without replacement by the Gumbel top-k trick."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key


def draw(
    key: Key[Array, ""], log_weights: Float[Array, "queries candidates"], *, count: int
) -> Int32[Array, "queries count"]:
    """Returns the positions of `count` candidates, drawn one after the other without replacement.

    Each draw is proportional to the weights of the candidates that remain. The `count` greatest sums of a log weight
    and Gumbel noise are such draws (Kool et al., ICML 2019, arXiv 1903.06059).

    Args:
      key: the random key.
      log_weights: the logs of the weights, up to a constant of each row; minus infinity is never drawn.
      count: the number of draws. If there are fewer candidates, the last entries are -1.
    """
    return greatest_positions(with_noise(key, log_weights), count=count)


def with_noise(
    key: Key[Array, ""], log_weights: Float[Array, "queries candidates"]
) -> Float[Array, "queries candidates"]:
    """Returns log weights plus standard Gumbel noise, up to a constant of each row; minus infinity stays as it is."""
    possible = log_weights > -jnp.inf
    # The greatest log weight becomes 0, because float32 would round the noise if it were added to a large number.
    greatest = jnp.where(possible, log_weights, -jnp.inf).max(axis=1, keepdims=True, initial=-jnp.inf)
    shifted = jnp.where(possible, log_weights, 0.0) - jnp.where(jnp.isfinite(greatest), greatest, 0.0)
    return jnp.where(possible, shifted + jax.random.gumbel(key, log_weights.shape, jnp.float32), -jnp.inf)


def greatest_positions(keys: Float[Array, "queries candidates"], *, count: int) -> Int32[Array, "queries count"]:
    """Returns the positions of the `count` greatest keys, the greatest first; -1 for keys that are minus infinity.

    Raises ValueError if count is not positive.
    """
    if count < 1:
        raise ValueError(f"negatives: count must be at least 1, found {count}")
    found, position = jax.lax.top_k(keys, min(count, keys.shape[1]))
    position = jnp.where(found > -jnp.inf, position, -1).astype(jnp.int32)
    return jnp.pad(position, ((0, 0), (0, count - position.shape[1])), constant_values=-1)
