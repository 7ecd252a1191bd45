"""Pooling and the Dense modules after it. They compute one vector for each text from the states of its tokens."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32

from crops_jax.config import EncoderConfig
from crops_jax.models.layers import exact_gelu, linear

Pooling = Literal["mean", "first", "last"]

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda values: values,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "gelu": exact_gelu,
    "silu": jax.nn.silu,
}

# The smallest norm that torch.nn.functional.normalize divides by.
_SMALLEST_NORM = 1e-12


def pool_segments(
    states: Float[Array, "rows tokens width"],
    segments: Int32[Array, "rows tokens"],
    *,
    pooling: Pooling,
    max_segments: int,
) -> Float[Array, "rows max_segments width"]:
    """Returns one float32 vector for each text of a row, summed in float32; segments without tokens get zeros.

    Args:
      segments: the number of the text that each token belongs to, from 0 to max_segments - 1, ascending along the row;
        -1 for padding.
      pooling: "mean" is the mean of a text's states, "first" and "last" are the state of that token.
      max_segments: the number of segments in a row, including empty ones.
    """
    weights = _pooling_weights(segments, pooling=pooling, max_segments=max_segments)
    # This is a product, not a scatter, because its gradient is a product too. The precision is HIGHEST because a state
    # times 1 must equal the state.
    return jnp.einsum("rst,rtw->rsw", weights, states.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)


def _pooling_weights(
    segments: Int32[Array, "rows tokens"], *, pooling: Pooling, max_segments: int
) -> Float[Array, "rows max_segments tokens"]:
    members = segment_members(segments, max_segments=max_segments)
    if pooling == "mean":
        return members / jnp.maximum(members.sum(axis=2, keepdims=True), 1).astype(jnp.float32)
    border = jnp.full_like(segments[:, :1], -1)
    if pooling == "first":
        ends = segments != jnp.concatenate([border, segments[:, :-1]], axis=1)
    elif pooling == "last":
        ends = segments != jnp.concatenate([segments[:, 1:], border], axis=1)
    else:
        raise ValueError(f"pooling is mean, first or last, found {pooling}")
    return (members & ends[:, None, :]).astype(jnp.float32)


def segment_members(
    segments: Int32[Array, "rows tokens"], *, max_segments: int
) -> Bool[Array, "rows max_segments tokens"]:
    """Returns whether each token belongs to each segment of its row."""
    return segments[:, None, :] == jnp.arange(max_segments)[None, :, None]


def dense_modules(config: EncoderConfig, *, rngs: nnx.Rngs) -> nnx.List:
    """Returns the linear layers of the Dense modules after the pooling, as sentence-transformers has them."""
    sizes = itertools.pairwise((config.width, *config.dense_widths))
    return nnx.List(
        [
            linear(inputs, outputs, bias=bias, dtype=config.compute_dtype, rngs=rngs)
            for (inputs, outputs), bias in zip(sizes, config.dense_biases, strict=True)
        ]
    )


def through_dense(
    vectors: Float[Array, "rows max_segments width"],
    segments: Int32[Array, "rows tokens"],
    *,
    layers: Iterable[Callable[[Array], Array]],
    activations: Sequence[str],
) -> Float[Array, "rows max_segments dim"]:
    """Returns the float32 vectors after all Dense modules; segments without tokens get zeros.

    Args:
      vectors: the pooled states of the texts of each row.
      segments: see `pool_segments`.
      layers: the linear layers of `dense_modules`.
      activations: the activation of each, see EncoderConfig.dense_activations.
    """
    has_tokens = segment_members(segments, max_segments=vectors.shape[1]).any(axis=2)
    for layer, activation in zip(layers, activations, strict=True):
        vectors = _ACTIVATIONS[activation](layer(vectors))
    return jnp.where(has_tokens[:, :, None], vectors.astype(jnp.float32), 0)


def unit_norm(vectors: Float[Array, "texts width"]) -> Float[Array, "texts width"]:
    """Returns vectors divided by their Euclidean norm; zeros stay zeros and have finite gradients."""
    squared = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, _SMALLEST_NORM**2))
