"""Plain attention: products and a softmax, which tokens see which, and where each stands in its text."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key

from crops_jax.models.layers import drop, precision

# Of a score where attention must not look: finite, so that a row of nothing but padding stays free of NaN.
MASKED = -1e30


def visible(
    tokens: Int32[Array, "rows tokens"], segments: Int32[Array, "rows tokens"] | None, *, causal: bool = False
) -> Bool[Array, "rows #tokens tokens"]:
    """mask[n, q, k]: token q of row n sees token k.

    Args:
      tokens: padded with -1, where a row is one text.
      segments: the number of the text that a token belongs to, where a row holds several (crops_jax.text.packing).
      causal: only earlier tokens, and itself.
    """
    mask = (tokens >= 0)[:, None, :] if segments is None else segments[:, :, None] == segments[:, None, :]
    if not causal:
        return mask
    place = jnp.arange(tokens.shape[1])
    return mask & (place[None, :, None] >= place[None, None, :])


def positions(
    tokens: Int32[Array, "rows tokens"], segments: Int32[Array, "rows tokens"] | None
) -> Int32[Array, "#rows tokens"]:
    """How far each token is from the first one of its text; 0 for padding between texts, of which there may be much."""
    place = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    if segments is None:
        return place
    begins = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], axis=1)
    return jnp.where(segments < 0, 0, place - jax.lax.cummax(jnp.where(begins, place, 0), axis=1))


def attend(
    query: Float[Array, "rows tokens heads width"],
    key: Float[Array, "rows tokens groups width"],
    value: Float[Array, "rows tokens groups width"],
    mask: Bool[Array, "rows #tokens tokens"],
    *,
    dropout: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
) -> Float[Array, "rows tokens heads*width"]:
    """Scaled dot-product attention (Vaswani et al. 2017); softmax in float32.

    Head h uses key and value of group h // (heads / groups) (grouped-query attention, Ainslie et al. 2023).
    """
    rows, tokens, heads, width = query.shape
    groups = key.shape[2]
    shared = heads // groups
    # The heads of a group stand below one another, so that every product is one of plain matrices.
    query = query.reshape(rows, tokens, groups, shared, width).transpose(0, 2, 3, 1, 4)
    query = query.reshape(rows, groups, shared * tokens, width)
    key, value = (one.transpose(0, 2, 1, 3) for one in (key, value))
    exact = precision(query.dtype)
    logits = jnp.einsum("ngqd,ngkd->ngqk", query, key, precision=exact, preferred_element_type=jnp.float32)
    logits = logits.reshape(rows, groups, shared, tokens, tokens) / width**0.5
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], logits, MASKED), axis=-1).astype(query.dtype)
    weights = drop(weights, dropout, dropout_key).reshape(rows, groups, shared * tokens, tokens)
    mixed = jnp.einsum("ngqk,ngkd->ngqd", weights, value, precision=exact)
    mixed = mixed.reshape(rows, groups, shared, tokens, width).transpose(0, 3, 1, 2, 4)
    return mixed.reshape(rows, tokens, heads * width)
