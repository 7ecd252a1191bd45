"""The choice of the attention implementation, and attention as the layers of every tower call it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32

from crops_jax.config import EncoderConfig
from crops_jax.models.attention.plain import attend, positions, visible
from crops_jax.models.attention.rotary import rotated, rotations

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
    rotation: tuple[Array, Array] | None = None,
    score_divisor: float | None = None,
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
      rotation: cosine and sine by which queries and keys are rotated first (crops_jax.models.attention.rotary). None:
        they are not rotated.
      score_divisor: the number by which scores are divided. None: the square root of the width of a head.
      flash: the devices on which the kernels of crops_jax.models.attention.flash run, without dropout, bias, window and
        score_divisor; None: `attend`.

    Raises ValueError if flash attention is asked for a bias, a window or a divisor of scores.
    """
    if flash is None:
        mask = visible(tokens, segments, causal=causal, window=window)
        chosen = functools.partial(attend, mask=mask, dropout=dropout, bias=bias, score_divisor=score_divisor)
    elif bias is not None or window is not None or score_divisor is not None:
        raise ValueError("flash attention has no biases, windows and divisors; use attention 'plain' or 'auto'")
    else:
        from crops_jax.models.attention.flash import flash_attend  # imports Pallas only if it is used

        segments = jnp.minimum(tokens, 0) if segments is None else segments
        chosen = functools.partial(flash_attend, segments=segments, causal=causal, dropout=dropout, mesh=flash)
    if rotation is None:
        return chosen

    def attend_rotated(query: Array, key: Array, value: Array, **options: Any) -> Array:
        return chosen(rotated(query, rotation), rotated(key, rotation), value, **options)

    return attend_rotated


def attention_of_layers(
    tokens: Int32[Array, "rows tokens"],
    segments: Int32[Array, "rows tokens"] | None,
    *,
    global_layers: Sequence[bool],
    rotary_bases: tuple[float, float],
    head_width: int,
    window: int,
    **options: Any,
) -> list[Attend]:
    """Returns the attention of each layer, of which some see whole texts and the others have a window.

    Args:
      tokens, segments: see `attention_over`.
      global_layers: for each layer whether its tokens see whole texts.
      rotary_bases: the bases of the rotary frequencies of layers that see whole texts, and of the others.
      head_width: the width of a head.
      window: the number of positions on each side that a token of the other layers sees.
      options: further arguments of `attention_over`.
    """
    places = positions(tokens, segments)
    whole, local = (
        attention_over(
            tokens, segments, window=size, rotation=rotations(places, width=head_width, base=base), **options
        )
        for size, base in zip((None, window), rotary_bases, strict=True)
    )
    return [whole if is_global else local for is_global in global_layers]
