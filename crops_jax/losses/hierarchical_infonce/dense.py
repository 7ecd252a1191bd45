"""The reference form of H-InfoNCE: the whole score matrix, one pass per level, derivatives by JAX."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from crops_jax.labels import Level

# Stands for minus infinity: finite, so that no difference of two of them is NaN.
_LOWEST = -1e30


def dense_h_infonce(
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    labels: Int[Array, "queries docs"],
    temperature: Float[Array, ""],
    query_weights: Float[Array, "queries"],
    doc_mask: Bool[Array, "docs"],
) -> Float[Array, ""]:
    """H-InfoNCE from the definition; see `crops_jax.losses.h_infonce`. Memory O(queries * docs)."""
    scores = jnp.matmul(
        query_embeddings,
        doc_embeddings.T,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    real = (labels >= 0) & doc_mask[None, :]
    # A constant of the row changes no loss. Without it the derivative in temperature, a sum of scores whose weights
    # add up to 0, would lose three digits where the scores are large and alike.
    shift = jnp.where(real, scores, _LOWEST).max(axis=1, keepdims=True)
    z = jnp.where(real, scores - jax.lax.stop_gradient(jnp.maximum(shift, _LOWEST / 2)), 0.0) / temperature
    weights = jax.lax.stop_gradient(query_weights)[:, None]

    total = jnp.zeros((), jnp.float32)
    count = jnp.zeros((), jnp.float32)
    for level in range(1, max(Level) + 1):
        below = real & (labels < level)
        anchor = real & (labels == level) & below.any(axis=1, keepdims=True)
        against = jax.nn.logsumexp(jnp.where(below, z, _LOWEST), axis=1, keepdims=True)
        # The inner where keeps what is no anchor out of softplus, whose derivative would otherwise be 0 * infinity.
        loss = jnp.where(anchor, jax.nn.softplus(jnp.where(anchor, against - z, 0.0)), 0.0)
        total += (weights * loss).sum()
        count += jnp.where(anchor, weights, 0.0).sum()
    return jnp.where(count > 0, total / jnp.where(count > 0, count, 1.0), 0.0)
