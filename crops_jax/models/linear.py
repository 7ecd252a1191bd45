"""The linear layer of all towers: float32 parameters, products in a precision of one's choice."""

import jax.numpy as jnp
from flax import nnx

from crops_jax.models.attention import precision

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
