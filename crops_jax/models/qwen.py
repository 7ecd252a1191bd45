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
from crops_jax.devices.sharding import spread_lookup, spread_rows
from crops_jax.models.attention.api import Attend, attention_over
from crops_jax.models.attention.plain import positions
from crops_jax.models.layers import GatedFeedForward, drop, linear, split, table

_INITIALIZER = nnx.initializers.normal(stddev=0.02)


class Qwen(nnx.Module):
    """A Qwen or Mistral tower. A token sees itself and the earlier tokens of its text; padding is token -1."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.remat = config.remat
        self.max_tokens = config.max_positions
        self.head_width = config.head_width or config.width // config.heads
        self.rotary_base = config.rotary_base
        self.dtype = jnp.dtype(config.compute_dtype)
        self.token_embedding = table(config.vocabulary_size, config.width, initializer=_INITIALIZER, rngs=rngs)
        self.layers = nnx.List([Layer(config, rngs=rngs) for _ in range(config.layers)])
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
        attend = attention_over(tokens, segments, causal=True, dropout=self.dropout, flash=flash)
        rotation = rotations(positions(tokens, segments), width=self.head_width, base=self.rotary_base)
        states = spread_lookup(self.token_embedding(jnp.maximum(tokens, 0)).astype(self.dtype))
        for layer, key in zip(self.layers, split(dropout_key, len(self.layers)), strict=True):

            def run(states: Array, key: Array | None, layer: Layer = layer) -> Array:
                return spread_rows(layer(states, attend, rotation, dropout_key=key))

            states = (jax.checkpoint(run) if self.remat else run)(states, key)
        return self.final_norm(states).astype(self.dtype)


class Layer(nnx.Module):
    """A layer of self-attention and a feed-forward network. Each reads normalised states and is added to the states."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.attention_norm = _norm(config.width, config, rngs)
        self.attention = Attention(config, rngs=rngs)
        self.feed_forward_norm = _norm(config.width, config, rngs)
        self.feed_forward = GatedFeedForward(
            config.width,
            config.feed_forward_width,
            activation=jax.nn.silu,
            dtype=config.compute_dtype,
            initializer=_INITIALIZER,
            rngs=rngs,
        )

    def __call__(
        self,
        states: Float[Array, "texts tokens width"],
        attend: Attend,
        rotation: tuple[Array, Array],
        *,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "texts tokens width"]:
        keys = split(dropout_key, 3)
        normal = self.attention_norm(states).astype(states.dtype)
        states = states + drop(self.attention(normal, attend, rotation, dropout_key=keys[0]), self.dropout, keys[1])
        normal = self.feed_forward_norm(states).astype(states.dtype)
        return states + drop(self.feed_forward(normal), self.dropout, keys[2])


class Attention(nnx.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        head_width = config.head_width or config.width // config.heads
        groups = config.key_value_heads or config.heads
        self.heads, self.groups = config.heads, groups
        bias = config.family == "qwen2"
        self.query = _linear(config.width, config.heads * head_width, config, rngs, bias=bias)
        self.key = _linear(config.width, groups * head_width, config, rngs, bias=bias)
        self.value = _linear(config.width, groups * head_width, config, rngs, bias=bias)
        self.output = _linear(config.heads * head_width, config.width, config, rngs, bias=False)
        self.norms_heads = config.family == "qwen3"
        if self.norms_heads:
            self.query_norm = _norm(head_width, config, rngs)
            self.key_norm = _norm(head_width, config, rngs)

    def __call__(
        self,
        states: Float[Array, "texts tokens width"],
        attend: Attend,
        rotation: tuple[Array, Array],
        *,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "texts tokens width"]:
        shape = states.shape[:2]
        query = self.query(states).reshape(*shape, self.heads, -1)
        key = self.key(states).reshape(*shape, self.groups, -1)
        value = self.value(states).reshape(*shape, self.groups, -1)
        if self.norms_heads:
            query, key = self.query_norm(query).astype(states.dtype), self.key_norm(key).astype(states.dtype)
        query, key = rotated(query, rotation), rotated(key, rotation)
        return self.output(attend(query, key, value, dropout_key=dropout_key))


def rotations(
    positions: Int32[Array, "rows tokens"], *, width: int, base: float
) -> tuple[Float[Array, "rows tokens half"], Float[Array, "rows tokens half"]]:
    """Returns cosine and sine of position / base^(2 i / width) for i = 0 to width / 2 - 1 (RoFormer, equation 15)."""
    frequencies = base ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angles = positions[:, :, None].astype(jnp.float32) * frequencies[None, None, :]
    return jnp.cos(angles), jnp.sin(angles)


def rotated(
    vectors: Float[Array, "rows tokens heads width"], rotation: tuple[Array, Array]
) -> Float[Array, "rows tokens heads width"]:
    """Returns vectors with components i and i + width / 2 of every head rotated as a pair, as Hugging Face does."""
    cosine, sine = (part[:, :, None, :] for part in rotation)
    first, second = jnp.split(vectors.astype(jnp.float32), 2, axis=-1)
    halves = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(halves, axis=-1).astype(vectors.dtype)


def _linear(inputs: int, outputs: int, config: EncoderConfig, rngs: nnx.Rngs, *, bias: bool) -> nnx.Linear:
    return linear(inputs, outputs, dtype=config.compute_dtype, bias=bias, initializer=_INITIALIZER, rngs=rngs)


def _norm(width: int, config: EncoderConfig, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(width, epsilon=config.layer_norm_epsilon, dtype=jnp.float32, param_dtype=jnp.float32, rngs=rngs)
