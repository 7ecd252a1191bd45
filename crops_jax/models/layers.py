"""What the layers of all towers share: linear maps with float32 parameters, dropout, precision of products."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

# Devlin et al. (BERT) initialise every matrix so.
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
    """x @ kernel + bias, computed in `dtype`; kernel [inputs, outputs]."""
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
