"""The parts that towers share: tables, norms, linear maps and gated networks in float32, dropout, precision, layers."""

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from crops_jax.config import EncoderConfig
from crops_jax.devices.sharding import spread_rows

# Devlin et al. (BERT) initialise every matrix in this way.
TRUNCATED_NORMAL = nnx.initializers.truncated_normal(stddev=0.02)
# Decoders initialise them in this way.
NORMAL = nnx.initializers.normal(stddev=0.02)


def linear(
    inputs: int,
    outputs: int,
    *,
    rngs: nnx.Rngs,
    dtype: str = "float32",
    bias: bool = True,
    initializer: nnx.Initializer = TRUNCATED_NORMAL,
) -> nnx.Linear:
    """Returns the layer x @ kernel + bias, computed in `dtype`; the kernel is [inputs, outputs] in float32."""
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=bias,
        dtype=jnp.dtype(dtype),
        precision=precision(jnp.dtype(dtype)),
        kernel_init=initializer,
        param_dtype=jnp.float32,
        rngs=rngs,
    )


def table(rows: int, width: int, *, rngs: nnx.Rngs, initializer: nnx.Initializer = TRUNCATED_NORMAL) -> nnx.Embed:
    """Returns a table of embeddings, [rows, width], in float32."""
    return nnx.Embed(rows, width, dtype=jnp.float32, param_dtype=jnp.float32, embedding_init=initializer, rngs=rngs)


def layer_norm(width: int, *, epsilon: float, rngs: nnx.Rngs, bias: bool = True) -> nnx.LayerNorm:
    """Returns a layer norm that computes in float32."""
    # The fast variance, E[x^2] - E[x]^2, loses its digits by cancellation when the mean is large.
    return nnx.LayerNorm(
        width,
        epsilon=epsilon,
        use_bias=bias,
        dtype=jnp.float32,
        param_dtype=jnp.float32,
        use_fast_variance=False,
        rngs=rngs,
    )


class ShiftedRMSNorm(nnx.Module):
    """The RMS norm (Zhang and Sennrich 2019) of Gemma, whose factor is 1 + scale; it computes in float32."""

    def __init__(self, width: int, *, epsilon: float):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.zeros(width, jnp.float32))

    def __call__(self, states: Float[Array, "... width"]) -> Float[Array, "... width"]:
        states = states.astype(jnp.float32)
        mean = jnp.mean(states * states, axis=-1, keepdims=True)
        factor = jnp.expand_dims(1 + self.scale[...], tuple(range(states.ndim - 1)))
        return states * jax.lax.rsqrt(mean + self.epsilon) * factor


def exact_gelu(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the GELU by erf, not by its approximation."""
    return jax.nn.gelu(values, approximate=False)


class GatedFeedForward(nnx.Module):
    """The feed-forward network down(activation(gate(x)) * up(x)) without biases (Shazeer 2020).

    It is SwiGLU with the activation silu, and GeGLU with GELU.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: Callable[[Array], Array],
        rngs: nnx.Rngs,
        dtype: str = "float32",
        initializer: nnx.Initializer = TRUNCATED_NORMAL,
    ):
        self.activation = activation
        self.gate = linear(width, hidden, rngs=rngs, dtype=dtype, bias=False, initializer=initializer)
        self.up = linear(width, hidden, rngs=rngs, dtype=dtype, bias=False, initializer=initializer)
        self.down = linear(hidden, width, rngs=rngs, dtype=dtype, bias=False, initializer=initializer)

    def __call__(self, states: Float[Array, "texts tokens width"]) -> Float[Array, "texts tokens width"]:
        return self.down(self.activation(self.gate(states)) * self.up(states))


class PreNormLayer(nnx.Module):
    """A layer of self-attention and a gated network. Each reads normalised states and is added to the states."""

    def __init__(
        self,
        config: EncoderConfig,
        *,
        norm: Callable[[], Callable[[Array], Array]],
        attention: Callable[[], Callable[..., Array]],
        activation: Callable[[Array], Array],
        rngs: nnx.Rngs,
        initializer: nnx.Initializer = TRUNCATED_NORMAL,
        normalises_inputs: bool = True,
        normalises_outputs: bool = False,
    ):
        """Draws the parameters.

        Args:
          norm: makes a norm of the states.
          attention: makes the attention, a function of states, attend and dropout_key.
          activation: the activation of the gated network.
          initializer: draws the matrices of the network.
          normalises_inputs: whether the states are normalised for attention; for the network they always are.
          normalises_outputs: whether what attention and network compute is normalised before it is added.
        """
        self.dropout = config.dropout
        self.attention_norm = norm() if normalises_inputs else None
        self.attention = attention()
        self.attention_output_norm = norm() if normalises_outputs else None
        self.feed_forward_norm = norm()
        self.feed_forward = GatedFeedForward(
            config.width,
            config.feed_forward_width,
            activation=activation,
            dtype=config.compute_dtype,
            initializer=initializer,
            rngs=rngs,
        )
        self.feed_forward_output_norm = norm() if normalises_outputs else None

    def __call__(
        self,
        states: Float[Array, "texts tokens width"],
        attend: Callable[..., Array],
        *,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "texts tokens width"]:
        keys = split(dropout_key, 3)
        added = self.attention(_normal(states, self.attention_norm), attend, dropout_key=keys[0])
        states = states + drop(_normal(added, self.attention_output_norm), self.dropout, keys[1])
        added = self.feed_forward(_normal(states, self.feed_forward_norm))
        return states + drop(_normal(added, self.feed_forward_output_norm), self.dropout, keys[2])


def through_layers(
    layers: Iterable[Callable[..., Array]],
    states: Float[Array, "texts tokens width"],
    attend: Sequence[Callable[..., Array]],
    *,
    keys: Sequence[Key[Array, ""] | None],
    remat: bool,
) -> Float[Array, "texts tokens width"]:
    """Returns the states after all layers.

    Args:
      layers: the layers, functions of states, attend and dropout_key.
      states: the states before the first layer.
      attend: the attention of each layer (crops_jax.models.attention.api.Attend).
      keys: the key of dropout of each layer.
      remat: whether the backward pass computes each layer again, so that its states need not be kept in memory.
    """
    for layer, own_attend, key in zip(layers, attend, keys, strict=True):

        def run(
            states: Array, key: Array | None, layer: Callable = layer, attend: Callable = own_attend
        ) -> Float[Array, "texts tokens width"]:
            return spread_rows(layer(states, attend, dropout_key=key))

        states = (jax.checkpoint(run) if remat else run)(states, key)
    return states


def _normal(values: Array, norm: Callable[[Array], Array] | None) -> Array:
    return values if norm is None else norm(values).astype(values.dtype)


def drop(values: Float[Array, "..."], rate: float, key: Key[Array, ""] | None) -> Float[Array, "..."]:
    """Returns values after dropout at `rate`, scaled to the same mean. Without a key the values are unchanged."""
    if key is None or rate == 0:
        return values
    kept = jax.random.bernoulli(key, 1 - rate, values.shape)
    return jnp.where(kept, values / (1 - rate), 0)


def split(key: Key[Array, ""] | None, count: int) -> list:
    """Returns `count` keys split from one key, or a list of `count` None if the key is None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def precision(dtype: jnp.dtype) -> jax.lax.Precision | None:
    """Returns the precision of matrix products of `dtype`.

    Without HIGHEST, products of float32 would use TF32 on GPUs and bfloat16 passes on TPUs.
    """
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
