"""The Qwen2-, Qwen3- and Mistral-family text encoder. It maps token ids to token states.

Qwen2 (Yang et al. 2024, arXiv 2407.10671; Qwen2.5 has the same tower), Qwen3 (arXiv 2505.09388) and Mistral (arXiv
2310.06825) serve as encoders (Qwen3-Embedding, arXiv 2506.05176; E5-Mistral, arXiv 2401.00368). They have causal
attention, rotary positions (Su et al. 2021), grouped keys and values, RMS norms before each block and after the last,
and SwiGLU. Qwen2 has biases on query, key and value; the others have none. Qwen3 has an RMS norm on the query and key
of every head. The window of Mistral's attention has no effect, since no text may be longer than it (max_positions).

The parameter paths below a tower are (i counts layers; w = width, h = heads * head width, g = key_value_heads * head
width, f = feed_forward_width, d = head width):

    token_embedding/embedding                               [vocabulary_size, w]
    layers/i/attention_norm/scale                           [w]
    layers/i/attention/query/{kernel,bias}                  [w, h], [h]     bias: Qwen2
    layers/i/attention/{key,value}/{kernel,bias}            [w, g], [g]     bias: Qwen2
    layers/i/attention/{query_norm,key_norm}/scale          [d]             Qwen3
    layers/i/attention/output/kernel                        [h, w]
    layers/i/feed_forward_norm/scale                        [w]
    layers/i/feed_forward/{gate,up}/kernel                  [w, f]
    layers/i/feed_forward/down/kernel                       [f, w]
    final_norm/scale                                        [w]

Parameters are float32. Matrix products run in config.compute_dtype; norms, rotations and softmax are float32.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, Key

from crops_jax.config import EncoderConfig
from crops_jax.devices.sharding import spread_lookup
from crops_jax.models.attention.api import attention_over
from crops_jax.models.attention.plain import positions
from crops_jax.models.attention.rotary import rotations
from crops_jax.models.attention.self_attention import SelfAttention
from crops_jax.models.layers import NORMAL, PreNormLayer, split, table, through_layers


class Qwen(nnx.Module):
    """A Qwen or Mistral tower. A token sees itself and the earlier tokens of its text; padding is token -1."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.remat = config.remat
        self.max_tokens = config.max_positions
        self.head_width = config.head_width or config.width // config.heads
        self.rotary_base = config.rotary_base
        self.dtype = jnp.dtype(config.compute_dtype)
        self.token_embedding = table(config.vocabulary_size, config.width, initializer=NORMAL, rngs=rngs)
        self.layers = nnx.List([_layer(config, rngs) for _ in range(config.layers)])
        self.final_norm = _norm(config.width, config, rngs)

    def __call__(
        self,
        tokens: Int32[Array, "texts tokens"],
        *,
        segments: Int32[Array, "texts tokens"] | None = None,
        dropout_key: Key[Array, ""] | None = None,
        flash: Mesh | None = None,
    ) -> Float[Array, "texts tokens width"]:
        """Returns the states of all tokens in config.compute_dtype; the states of padding have no meaning.

        The arguments are those of crops_jax.models.bert.Bert.

        Raises ValueError if a row is one text and has more tokens than config.max_positions.
        """
        if segments is None and tokens.shape[1] > self.max_tokens:
            raise ValueError(f"at most {self.max_tokens} tokens a text, found {tokens.shape[1]}")
        rotation = rotations(positions(tokens, segments), width=self.head_width, base=self.rotary_base)
        attend = attention_over(tokens, segments, causal=True, dropout=self.dropout, rotation=rotation, flash=flash)
        states = spread_lookup(self.token_embedding(jnp.maximum(tokens, 0)).astype(self.dtype))
        count = len(self.layers)
        states = through_layers(self.layers, states, [attend] * count, keys=split(dropout_key, count), remat=self.remat)
        return self.final_norm(states).astype(self.dtype)


def _layer(config: EncoderConfig, rngs: nnx.Rngs) -> PreNormLayer:
    def attention() -> SelfAttention:
        return SelfAttention(
            config,
            bias=config.family == "qwen2",
            head_norm=(lambda width: _norm(width, config, rngs)) if config.family == "qwen3" else None,
            initializer=NORMAL,
            rngs=rngs,
        )

    return PreNormLayer(
        config,
        norm=lambda: _norm(config.width, config, rngs),
        attention=attention,
        activation=jax.nn.silu,
        initializer=NORMAL,
        rngs=rngs,
    )


def _norm(width: int, config: EncoderConfig, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(width, epsilon=config.layer_norm_epsilon, dtype=jnp.float32, param_dtype=jnp.float32, rngs=rngs)
