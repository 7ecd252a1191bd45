"""Which tokens see which, where they stand in their text, and attention itself: what all towers share."""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int32, Key

from crops_jax.config import EncoderConfig

# Of a score where attention must not look: finite, so that a row of nothing but padding stays free of NaN.
MASKED = -1e30

# From here on the weights that plain attention keeps for backward, heads * tokens for each token, weigh as much as all
# other states of a layer.
_LONG_ROW = 512
# Those that crops_jax.models.flash_attention has kernels for.
_FLASH_PLATFORMS = ("tpu", "gpu", "cuda")

Attend = Callable[..., Float[Array, "rows tokens heads*width"]]
"""attend(query, key, value, dropout_key=None): see `attend`."""


def attention_that_runs(config: EncoderConfig, *, mesh: Mesh, row_tokens: int) -> Literal["plain", "flash"]:
    """The attention of a train step over `mesh` on rows of `row_tokens`. Raises ValueError when the named one cannot.

    "auto" is flash on TPUs for rows of 512 tokens and more, without dropout, and plain otherwise: on shorter rows the
    weights are little beside the other states, and on no GPU have the kernels for it been measured yet.
    """
    platform = mesh.devices.flat[0].platform
    if config.attention == "auto":
        suits = platform == "tpu" and row_tokens >= _LONG_ROW and not config.dropout and config.family != "hashed"
        return "flash" if suits else "plain"
    if config.attention == "flash" and platform not in _FLASH_PLATFORMS:
        raise ValueError(
            f"encoder.attention 'flash' cannot run on {platform}: its kernels are for TPU and NVIDIA GPUs; use 'plain' "
            "or 'auto'"
        )
    return config.attention


def attention_over(
    tokens: Int32[Array, "rows tokens"],
    segments: Int32[Array, "rows tokens"] | None,
    *,
    causal: bool = False,
    dropout: float = 0.0,
    flash: Mesh | None = None,
) -> Attend:
    """Attention among the tokens of each text, as the layers of a tower call it.

    Args:
      tokens: padded with -1, where a row is one text.
      segments: the number of the text that a token belongs to, where a row holds several (crops_jax.text.packing).
      causal: a token sees only earlier ones, and itself.
      dropout: of the weights.
      flash: devices on which the kernels of crops_jax.models.flash_attention run, without dropout; None: `attend`.
    """
    if flash is None:
        return functools.partial(attend, mask=visible(tokens, segments, causal=causal), dropout=dropout)
    from crops_jax.models.flash_attention import flash_attend  # Pallas is imported where it is used only

    segments = jnp.minimum(tokens, 0) if segments is None else segments
    return functools.partial(flash_attend, segments=segments, causal=causal, dropout=dropout, mesh=flash)


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


def drop(values: Float[Array, "..."], rate: float, key: Key[Array, ""] | None) -> Float[Array, "..."]:
    """Dropout at `rate`, scaled so that the mean stays; none without a key."""
    if key is None or rate == 0:
        return values
    kept = jax.random.bernoulli(key, 1 - rate, values.shape)
    return jnp.where(kept, values / (1 - rate), 0)


def split(key: Key[Array, ""] | None, count: int) -> list:
    """`count` keys of one, or as many None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def precision(dtype: jnp.dtype) -> jax.lax.Precision | None:
    """Of matrix products: float32 would otherwise mean TF32 on GPUs and bfloat16 passes on TPUs."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
