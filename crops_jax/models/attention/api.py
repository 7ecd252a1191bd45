"""The choice of the attention implementation, and attention as the layers of every tower call it."""

import functools
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32

from crops_jax.config import EncoderConfig
from crops_jax.models.attention.plain import attend, visible

# For rows of this many tokens the weights that plain attention keeps for the backward pass, heads * tokens for each
# token, need as much memory as all other states of a layer.
_LONG_ROW = 512
# The platforms that crops_jax.models.attention.flash has kernels for.
_FLASH_PLATFORMS = ("tpu", "gpu", "cuda")

Attend = Callable[..., Float[Array, "rows tokens heads*width"]]
"""The type of attend(query, key, value, dropout_key=None); see crops_jax.models.attention.plain.attend."""


def attention_that_runs(config: EncoderConfig, *, mesh: Mesh, row_tokens: int) -> Literal["plain", "flash"]:
    """Returns the attention of a train step on `mesh` for rows of `row_tokens` tokens.

    "auto" is flash on TPUs for rows of at least 512 tokens without dropout, and plain otherwise: on shorter rows the
    weights need little memory compared with the other states, and the kernels have not been measured on GPUs yet.

    Raises ValueError if config.attention names an implementation that cannot run on the mesh.
    """
    platform = mesh.devices.flat[0].platform
    if config.attention == "auto":
        suits = platform == "tpu" and row_tokens >= _LONG_ROW and not config.dropout and config.has_flash_attention
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
    bias: Float[Array, "heads tokens tokens"] | None = None,
    window: int | None = None,
    flash: Mesh | None = None,
) -> Attend:
    """Returns a function of query, key and value: attention among the tokens of each text.

    Args:
      tokens: token ids padded with -1, if each row is one text.
      segments: the number of the text that each token belongs to, if a row holds several (crops_jax.text.packing).
      causal: a token sees only itself and earlier tokens.
      dropout: the dropout rate of the weights.
      bias: what is added to the score of each pair of tokens of a row.
      window: a token sees only tokens that are at most so many positions away. None: it sees its whole text.
      flash: the devices on which the kernels of crops_jax.models.attention.flash run, without dropout, bias and
        window; None: `attend`.

    Raises ValueError if flash attention is asked for a bias or a window.
    """
    if flash is None:
        return functools.partial(
            attend, mask=visible(tokens, segments, causal=causal, window=window), dropout=dropout, bias=bias
        )
    if bias is not None or window is not None:
        raise ValueError("flash attention has neither biases nor windows; use attention 'plain' or 'auto'")
    from crops_jax.models.attention.flash import flash_attend  # imports Pallas only if it is used

    segments = jnp.minimum(tokens, 0) if segments is None else segments
    return functools.partial(flash_attend, segments=segments, causal=causal, dropout=dropout, mesh=flash)
