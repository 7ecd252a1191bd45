"""The ModernBERT text encoder. It maps token ids to token states.

Warner et al., "Smarter, Better, Faster, Longer" (arXiv 2412.13663): bidirectional attention with rotary positions (Su
et al. 2021), layer norms before each block and after the last, GeGLU (Shazeer 2020), no biases. Every `global_every`-th
layer, from the first on, sees whole texts. A token of the other layers sees the tokens within `local_window` positions,
and their rotary base is local_rotary_base. The first layer has no norm before its attention, because the embeddings are
normalised.

The parameter paths below a tower are (i counts layers; w = width, f = feed_forward_width):

    token_embedding/embedding                       [vocabulary_size, w]
    embedding_norm/scale                            [w]
    layers/i/attention_norm/scale                   [w]         i > 0
    layers/i/attention/{query,key,value}/kernel     [w, w]      heads split the columns
    layers/i/attention/output/kernel                [w, w]      heads split the rows
    layers/i/feed_forward_norm/scale                [w]
    layers/i/feed_forward/{gate,up}/kernel          [w, f]
    layers/i/feed_forward/down/kernel               [f, w]
    final_norm/scale                                [w]

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
from crops_jax.models.layers import GatedFeedForward, drop, exact_gelu, layer_norm, linear, split, table
from crops_jax.models.qwen import rotated, rotations


class ModernBert(nnx.Module):
    """A ModernBERT tower. Padding is token -1; it does not change the state of any other token."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.remat = config.remat
        self.max_tokens = config.max_positions
        self.head_width = config.width // config.heads
        self.rotary_base, self.local_rotary_base = config.rotary_base, config.local_rotary_base
        self.local_window, self.global_every = config.local_window, config.global_every
        self.dtype = jnp.dtype(config.compute_dtype)
        self.token_embedding = table(config.vocabulary_size, config.width, rngs=rngs)
        self.embedding_norm = _norm(config, rngs)
        self.layers = nnx.List([Layer(config, is_first=i == 0, rngs=rngs) for i in range(config.layers)])
        self.final_norm = _norm(config, rngs)

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
        places = positions(tokens, segments)
        kinds = {
            True: (
                attention_over(tokens, segments, dropout=self.dropout, flash=flash),
                rotations(places, width=self.head_width, base=self.rotary_base),
            ),
            False: (
                attention_over(tokens, segments, dropout=self.dropout, window=self.local_window, flash=flash),
                rotations(places, width=self.head_width, base=self.local_rotary_base),
            ),
        }
        keys = split(dropout_key, 1 + len(self.layers))
        states = self.embedding_norm(spread_lookup(self.token_embedding(jnp.maximum(tokens, 0)))).astype(self.dtype)
        states = drop(states, self.dropout, keys[0])
        for i, (layer, key) in enumerate(zip(self.layers, keys[1:], strict=True)):
            attend, rotation = kinds[i % self.global_every == 0]

            def run(
                states: Array,
                key: Array | None,
                layer: Layer = layer,
                attend: Attend = attend,
                rotation: tuple[Array, Array] = rotation,
            ) -> Array:
                return spread_rows(layer(states, attend, rotation, dropout_key=key))

            states = (jax.checkpoint(run) if self.remat else run)(states, key)
        return self.final_norm(states).astype(self.dtype)


class Layer(nnx.Module):
    """A layer of self-attention and a feed-forward network. Each reads normalised states and is added to the states."""

    def __init__(self, config: EncoderConfig, *, is_first: bool, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.attention_norm = None if is_first else _norm(config, rngs)
        self.attention = Attention(config, rngs=rngs)
        self.feed_forward_norm = _norm(config, rngs)
        self.feed_forward = GatedFeedForward(
            config.width,
            config.feed_forward_width,
            activation=exact_gelu,
            dtype=config.compute_dtype,
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
        normal = states if self.attention_norm is None else self.attention_norm(states).astype(states.dtype)
        states = states + drop(self.attention(normal, attend, rotation, dropout_key=keys[0]), self.dropout, keys[1])
        normal = self.feed_forward_norm(states).astype(states.dtype)
        return states + drop(self.feed_forward(normal), self.dropout, keys[2])


class Attention(nnx.Module):
    """Multi-head self-attention with rotary positions. The argument `attend` decides which tokens see each other."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.heads = config.heads
        self.query = _linear(config.width, config.width, config, rngs)
        self.key = _linear(config.width, config.width, config, rngs)
        self.value = _linear(config.width, config.width, config, rngs)
        self.output = _linear(config.width, config.width, config, rngs)

    def __call__(
        self,
        states: Float[Array, "texts tokens width"],
        attend: Attend,
        rotation: tuple[Array, Array],
        *,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "texts tokens width"]:
        by_head = (*states.shape[:2], self.heads, -1)
        query, key, value = (project(states).reshape(by_head) for project in (self.query, self.key, self.value))
        return self.output(attend(rotated(query, rotation), rotated(key, rotation), value, dropout_key=dropout_key))


def _linear(inputs: int, outputs: int, config: EncoderConfig, rngs: nnx.Rngs) -> nnx.Linear:
    return linear(inputs, outputs, dtype=config.compute_dtype, bias=False, rngs=rngs)


def _norm(config: EncoderConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return layer_norm(config.width, epsilon=config.layer_norm_epsilon, bias=False, rngs=rngs)
