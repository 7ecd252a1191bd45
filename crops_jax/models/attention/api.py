"""Which attention runs, and attention as the layers of every tower call it."""

import functools
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32

from crops_jax.config import EncoderConfig
from crops_jax.models.attention.plain import attend, visible

# From here on the weights that plain attention keeps for backward, heads * tokens for each token, weigh as much as all
# other states of a layer.
_LONG_ROW = 512
# Those that crops_jax.models.attention.flash has kernels for.
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
      flash: devices on which the kernels of crops_jax.models.attention.flash run, without dropout; None: `attend`.
    """
    if flash is None:
        return functools.partial(attend, mask=visible(tokens, segments, causal=causal), dropout=dropout)
    from crops_jax.models.attention.flash import flash_attend  # Pallas is imported where it is used only

    segments = jnp.minimum(tokens, 0) if segments is None else segments
    return functools.partial(flash_attend, segments=segments, causal=causal, dropout=dropout, mesh=flash)
