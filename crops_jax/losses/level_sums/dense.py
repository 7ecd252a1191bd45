"""The reference implementation. It stores the whole score matrix, and JAX derives its gradients."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from crops_jax.labels import SparseLabels
from crops_jax.losses.level_sums.sums import LOWEST, RawSums, margin_threshold


def dense_sums(
    scores: Float[Array, "queries docs"],
    labels: SparseLabels | Int[Array, "queries docs"],
    temperatures: Float[Array, "temperatures"],
    offset: Float[Array, "docs"],
    ignore_margin: float | None,
) -> RawSums:
    """Computes `crops_jax.losses.level_sums.api.level_sums_of_scores`, in memory O(queries * docs).

    With a label matrix, every column counts as a named pair in the field `named` of the result.
    """
    if isinstance(labels, SparseLabels):
        named = jnp.take_along_axis(scores, jnp.maximum(labels.doc_index, 0), axis=1)
        rows = jnp.arange(scores.shape[0])[:, None]
        column = jnp.where(labels.doc_index < 0, scores.shape[1], labels.doc_index)
        is_named = jnp.zeros(scores.shape, bool).at[rows, column].set(True, mode="drop")
    else:
        named, is_named = scores, labels != 0
    level_0 = (offset > LOWEST / 2)[None, :] & ~is_named
    ignored = jnp.zeros(scores.shape[0], jnp.int32)
    if ignore_margin is not None:
        level = labels.level if isinstance(labels, SparseLabels) else labels
        threshold = margin_threshold(named, level, ignore_margin)
        near = scores >= threshold[:, None]
        ignored = (level_0 & near).sum(axis=1, dtype=jnp.int32)
        level_0 &= ~near
    greatest = jax.lax.stop_gradient(jnp.where(level_0, scores, LOWEST / 2).max(axis=1))
    # The inner where replaces all pairs that are not of level 0 before exp. Otherwise their derivative would be
    # 0 * infinity.
    above = jnp.where(level_0, scores - greatest[:, None], 0.0)
    offset = jnp.where(offset > LOWEST / 2, offset, 0.0)
    total = jnp.stack(
        [jnp.where(level_0, jnp.exp(above / t + offset[None, :]), 0.0).sum(axis=1) for t in temperatures], axis=1
    )
    log_total = jnp.where(total > 0, jnp.log(jnp.where(total > 0, total, 1.0)), LOWEST)
    return RawSums(greatest, log_total, named, ignored)
