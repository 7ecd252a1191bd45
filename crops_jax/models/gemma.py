"""The text encoder of EmbeddingGemma. It maps token ids to token states.

EmbeddingGemma (Schechter Vera et al., arXiv 2509.20354) is Gemma 3 (arXiv 2503.19786) with bidirectional attention:
rotary positions (Su et al. 2021), grouped keys and values, GeGLU (Shazeer 2020), no biases. An RMS norm stands before
and after each block, on the query and key of every head, and after the last layer; its factor is 1 + scale. Embeddings
are multiplied by the square root of the width. Every `global_every`-th layer sees whole texts. A token of the other
layers sees the tokens within `local_window` positions, and their rotary base is local_rotary_base. Scores of attention
are divided by the square root of query_scalar.

The parameter paths below a tower are (i counts layers; w = width, h = heads * head width, g = key_value_heads * head
width, f = feed_forward_width, d = head width):

    token_embedding/embedding                                       [vocabulary_size, w]
    layers/i/{attention_norm,attention_output_norm}/scale           [w]
    layers/i/attention/query/kernel                                 [w, h]
    layers/i/attention/{key,value}/kernel                           [w, g]
    layers/i/attention/{query_norm,key_norm}/scale                  [d]
    layers/i/attention/output/kernel                                [h, w]
    layers/i/{feed_forward_norm,feed_forward_output_norm}/scale     [w]
    layers/i/feed_forward/{gate,up}/kernel                          [w, f]
    layers/i/feed_forward/down/kernel                               [f, w]
    final_norm/scale                                                [w]

Parameters are float32. Matrix products run in config.compute_dtype; norms, rotations and softmax are float32.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, Key

from crops_jax.config import EncoderConfig
from crops_jax.devices.sharding import spread_lookup
from crops_jax.models.attention.api import attention_of_layers
from crops_jax.models.attention.self_attention import SelfAttention
from crops_jax.models.layers import NORMAL, PreNormLayer, ShiftedRMSNorm, drop, split, table, through_layers


class Gemma(nnx.Module):
    """A tower of EmbeddingGemma. Padding is token -1; it does not change the state of any other token."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.remat = config.remat
        self.max_tokens = config.max_positions
        self.head_width = config.head_width or config.width // config.heads
        self.score_divisor = (config.query_scalar or self.head_width) ** 0.5
        self.embedding_scale = config.width**0.5
        self.rotary_bases = config.rotary_base, config.local_rotary_base
        self.local_window, self.global_layers = config.local_window, config.global_layers
        self.dtype = jnp.dtype(config.compute_dtype)
        self.token_embedding = table(config.vocabulary_size, config.width, initializer=NORMAL, rngs=rngs)
        self.layers = nnx.List([_layer(config, rngs) for _ in range(config.layers)])
        self.final_norm = _norm(config.width, config)

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
        attend = attention_of_layers(
            tokens,
            segments,
            global_layers=self.global_layers,
            rotary_bases=self.rotary_bases,
            head_width=self.head_width,
            window=self.local_window,
            score_divisor=self.score_divisor,
            dropout=self.dropout,
            flash=flash,
        )
        keys = split(dropout_key, 1 + len(self.layers))
        states = spread_lookup(self.token_embedding(jnp.maximum(tokens, 0))) * self.embedding_scale
        states = drop(states.astype(self.dtype), self.dropout, keys[0])
        states = through_layers(self.layers, states, attend, keys=keys[1:], remat=self.remat)
        return self.final_norm(states).astype(self.dtype)


def _layer(config: EncoderConfig, rngs: nnx.Rngs) -> PreNormLayer:
    def head_norm(width: int) -> ShiftedRMSNorm:
        return _norm(width, config)

    return PreNormLayer(
        config,
        norm=lambda: _norm(config.width, config),
        attention=lambda: SelfAttention(config, head_norm=head_norm, initializer=NORMAL, rngs=rngs),
        activation=functools.partial(jax.nn.gelu, approximate=True),
        initializer=NORMAL,
        normalises_outputs=True,
        rngs=rngs,
    )


def _norm(width: int, config: EncoderConfig) -> ShiftedRMSNorm:
    return ShiftedRMSNorm(width, epsilon=config.layer_norm_epsilon)
