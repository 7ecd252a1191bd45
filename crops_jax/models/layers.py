"""The parts that all towers share: tables, norms, linear maps and gated networks in float32, dropout, precision."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

# Devlin et al. (BERT) initialise every matrix in this way.
TRUNCATED_NORMAL = nnx.initializers.truncated_normal(stddev=0.02)


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
