"""Rotary positions, which turn queries and keys by angles that grow with the position (Su et al. 2021, RoFormer)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32


def rotations(
    positions: Int32[Array, "rows tokens"], *, width: int, base: float
) -> tuple[Float[Array, "rows tokens half"], Float[Array, "rows tokens half"]]:
    """Returns cosine and sine of position / base^(2 i / width) for i = 0 to width / 2 - 1 (RoFormer, equation 15)."""
    frequencies = base ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angles = positions[:, :, None].astype(jnp.float32) * frequencies[None, None, :]
    return jnp.cos(angles), jnp.sin(angles)


def rotated(
    vectors: Float[Array, "rows tokens heads width"], rotation: tuple[Array, Array]
) -> Float[Array, "rows tokens heads width"]:
    """Returns vectors with components i and i + width / 2 of every head rotated as a pair, as Hugging Face does."""
    cosine, sine = (part[:, :, None, :] for part in rotation)
    first, second = jnp.split(vectors.astype(jnp.float32), 2, axis=-1)
    halves = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(halves, axis=-1).astype(vectors.dtype)
