"""The self-attention layer of every tower: the projections around attention."""

from collections.abc import Callable

from flax import nnx
from jaxtyping import Array, Float, Key

from crops_jax.config import EncoderConfig
from crops_jax.models.attention.api import Attend
from crops_jax.models.layers import TRUNCATED_NORMAL, linear


class SelfAttention(nnx.Module):
    """Multi-head self-attention. The argument `attend` decides which tokens see each other, and rotates if it must.

    With fewer key and value heads than heads, each is shared by heads / key_value_heads queries (grouped-query
    attention, Ainslie et al. 2023).
    """

    def __init__(
        self,
        config: EncoderConfig,
        *,
        rngs: nnx.Rngs,
        bias: bool = False,
        output_bias: bool = False,
        head_norm: Callable[[int], Callable[[Array], Array]] | None = None,
        initializer: nnx.Initializer = TRUNCATED_NORMAL,
    ):
        """Draws the parameters.

        Args:
          bias: whether query, key and value have biases.
          output_bias: whether the output has one.
          head_norm: the norm of the queries and of the keys of every head, as a function of the width of a head; None:
            they are not normalised.
          initializer: draws the matrices.
        """
        head_width = config.head_width or config.width // config.heads
        groups = config.key_value_heads or config.heads

        def project(inputs: int, outputs: int, *, bias: bool) -> nnx.Linear:
            return linear(inputs, outputs, dtype=config.compute_dtype, bias=bias, initializer=initializer, rngs=rngs)

        self.heads, self.groups = config.heads, groups
        self.query = project(config.width, config.heads * head_width, bias=bias)
        self.key = project(config.width, groups * head_width, bias=bias)
        self.value = project(config.width, groups * head_width, bias=bias)
        self.output = project(config.heads * head_width, config.width, bias=output_bias)
        self.query_norm = None if head_norm is None else head_norm(head_width)
        self.key_norm = None if head_norm is None else head_norm(head_width)

    def __call__(
        self,
        states: Float[Array, "texts tokens width"],
        attend: Attend,
        *,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "texts tokens width"]:
        shape = states.shape[:2]
        query = self.query(states).reshape(*shape, self.heads, -1)
        key = self.key(states).reshape(*shape, self.groups, -1)
        value = self.value(states).reshape(*shape, self.groups, -1)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query).astype(states.dtype), self.key_norm(key).astype(states.dtype)
        return self.output(attend(query, key, value, dropout_key=dropout_key))
