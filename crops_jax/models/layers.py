"""The parts that the layers of all towers share: linear maps with float32 parameters, dropout, product precision."""

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
