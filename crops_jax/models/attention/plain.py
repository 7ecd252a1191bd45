"""Plain attention: products and a softmax, the mask of the tokens that see each other, and positions in a text."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key

from crops_jax.models.layers import drop, precision

# The score of a pair of tokens that do not see each other. It is finite, so that a row of only padding has no NaN.
MASKED = -1e30


def visible(
    tokens: Int32[Array, "rows tokens"],
    segments: Int32[Array, "rows tokens"] | None,
    *,
    causal: bool = False,
    window: int | None = None,
) -> Bool[Array, "rows #tokens tokens"]:
    """Returns the mask of attention: mask[n, q, k] is True if token q of row n sees token k.

    Args:
      tokens: token ids padded with -1, if each row is one text.
      segments: the number of the text that each token belongs to, if a row holds several (crops_jax.text.packing).
      causal: a token sees only itself and earlier tokens.
      window: a token sees only tokens that are at most so many positions away. None: it sees its whole text.
    """
    mask = (tokens >= 0)[:, None, :] if segments is None else segments[:, :, None] == segments[:, None, :]
    columns = jnp.arange(tokens.shape[1])
    if causal:
        mask = mask & (columns[None, :, None] >= columns[None, None, :])
    if window is not None:
        mask = mask & (jnp.abs(columns[None, :, None] - columns[None, None, :]) <= window)
    return mask


def positions(
    tokens: Int32[Array, "rows tokens"], segments: Int32[Array, "rows tokens"] | None
) -> Int32[Array, "#rows tokens"]:
    """Returns the distance of each token from the first token of its text; padding between texts has position 0."""
    columns = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    if segments is None:
        return columns
    begins = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], axis=1)
    return jnp.where(segments < 0, 0, columns - jax.lax.cummax(jnp.where(begins, columns, 0), axis=1))


def attend(
    query: Float[Array, "rows tokens heads width"],
    key: Float[Array, "rows tokens groups width"],
    value: Float[Array, "rows tokens groups width"],
    mask: Bool[Array, "rows #tokens tokens"],
    *,
    bias: Float[Array, "heads tokens tokens"] | None = None,
    score_divisor: float | None = None,
    dropout: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
) -> Float[Array, "rows tokens heads*width"]:
    """Returns scaled dot-product attention (Vaswani et al. 2017); the softmax is in float32.

    Head h uses key and value of group h // (heads / groups) (grouped-query attention, Ainslie et al. 2023). Scores are
    divided by `score_divisor`, which is the square root of the width where it is None; then `bias` is added to them.
    """
    rows, tokens, heads, width = query.shape
    groups = key.shape[2]
    shared = heads // groups
    # The queries of all heads of a group are rows of one matrix, so that every product is one of two matrices.
    query = query.reshape(rows, tokens, groups, shared, width).transpose(0, 2, 3, 1, 4)
    query = query.reshape(rows, groups, shared * tokens, width)
    key, value = (array.transpose(0, 2, 1, 3) for array in (key, value))
    full_precision = precision(query.dtype)
    logits = jnp.einsum("ngqd,ngkd->ngqk", query, key, precision=full_precision, preferred_element_type=jnp.float32)
    logits = logits.reshape(rows, groups, shared, tokens, tokens) / (score_divisor or width**0.5)
    if bias is not None:
        logits += bias.astype(jnp.float32).reshape(1, groups, shared, tokens, tokens)
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], logits, MASKED), axis=-1).astype(query.dtype)
    weights = drop(weights, dropout, dropout_key).reshape(rows, groups, shared * tokens, tokens)
    averages = jnp.einsum("ngqk,ngkd->ngqd", weights, value, precision=full_precision)
    averages = averages.reshape(rows, groups, shared, tokens, width).transpose(0, 3, 1, 2, 4)
    return averages.reshape(rows, tokens, heads * width)
