"""One vector of each text from the states of its tokens."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

Pooling = Literal["mean", "first", "last"]

# torch.nn.functional.normalize's smallest norm.
_SMALLEST_NORM = 1e-12


def pool_segments(
    states: Float[Array, "rows tokens width"],
    segments: Int32[Array, "rows tokens"],
    *,
    pooling: Pooling,
    most: int,
) -> Float[Array, "rows most width"]:
    """One vector of each text of a row; segments without tokens get zeros. Sums and result are float32.

    Args:
      segments: the number of the text that a token belongs to, from 0 to most - 1, ascending along the row; -1 for
        padding.
      pooling: the mean of a text's states, or the state of its first or last token.
      most: places for texts in a row.
    """
    weights = _pooling_weights(segments, pooling=pooling, most=most)
    # A product, not a scatter: its gradient is a product too. HIGHEST, since a state times 1 is to be that state.
    return jnp.einsum("rst,rtw->rsw", weights, states.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)


def _pooling_weights(
    segments: Int32[Array, "rows tokens"], *, pooling: Pooling, most: int
) -> Float[Array, "rows most tokens"]:
    members = segments[:, None, :] == jnp.arange(most)[None, :, None]
    if pooling == "mean":
        return members / jnp.maximum(members.sum(axis=2, keepdims=True), 1).astype(jnp.float32)
    border = jnp.full_like(segments[:, :1], -1)
    if pooling == "first":
        ends = segments != jnp.concatenate([border, segments[:, :-1]], axis=1)
    elif pooling == "last":
        ends = segments != jnp.concatenate([segments[:, 1:], border], axis=1)
    else:
        raise ValueError(f"pooling is mean, first or last, found {pooling}")
    return (members & ends[:, None, :]).astype(jnp.float32)


def unit_norm(vectors: Float[Array, "texts width"]) -> Float[Array, "texts width"]:
    """Vectors divided by their Euclidean norm; zeros stay zeros, with finite gradients."""
    squared = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, _SMALLEST_NORM**2))
