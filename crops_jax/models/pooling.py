"""One vector of a text from the states of its tokens."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Pooling = Literal["mean", "first", "last"]

# torch.nn.functional.normalize's smallest norm.
_SMALLEST_NORM = 1e-12


def pool(
    states: Float[Array, "texts tokens width"],
    mask: Bool[Array, "texts tokens"],
    *,
    pooling: Pooling,
) -> Float[Array, "texts width"]:
    """Pools over the tokens where `mask` is True; a text without any gets zeros. Sums and result are float32."""
    states = states.astype(jnp.float32)
    if pooling == "mean":
        total = jnp.sum(jnp.where(mask[:, :, None], states, 0), axis=1)
        return total / jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None]
    if pooling == "first":
        at = jnp.argmax(mask, axis=1)
    elif pooling == "last":
        at = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    else:
        raise ValueError(f"pooling is mean, first or last, found {pooling}")
    chosen = jnp.take_along_axis(states, at[:, None, None], axis=1)[:, 0]
    return jnp.where(jnp.any(mask, axis=1)[:, None], chosen, 0)


def unit_norm(vectors: Float[Array, "texts width"]) -> Float[Array, "texts width"]:
    """Vectors divided by their Euclidean norm; zeros stay zeros, with finite gradients."""
    squared = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, _SMALLEST_NORM**2))
