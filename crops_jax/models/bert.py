"""The BERT-family text encoder. It maps token ids to token states.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", NAACL 2019
(arXiv 1810.04805): learnt absolute positions, post-layer-norm blocks, exact GELU. RoBERTa and XLM-R have the same
tower; their first position is row `config.position_offset` of the position table. MPNet (Song et al., NeurIPS 2020,
arXiv 2004.09297) has no token types, and adds a learnt bias of the distance of two tokens to their score
(crops_jax.models.attention.relative_bias). NomicBERT (Nussbaum et al., arXiv 2402.01613) has rotary positions (Su et
al. 2021), SwiGLU (Shazeer 2020) and no biases besides those of the norms.

The parameter paths below a tower are (i counts layers; w = width, f = feed_forward_width):

    token_embedding/embedding                               [vocabulary_size, w]
    position_embedding/embedding                            [max_positions, w]            not NomicBERT
    token_type_embedding/embedding                          [type_vocabulary_size, w]     not MPNet
    relative_bias/embedding                                 [relative_buckets, heads]     MPNet
    embedding_norm/{scale,bias}                             [w]
    layers/i/attention/{query,key,value}/{kernel,bias}      [w, w], [w]     heads split the columns; NomicBERT: no bias
    layers/i/attention/output/{kernel,bias}                 [w, w], [w]     heads split the rows; NomicBERT: no bias
    layers/i/attention_norm/{scale,bias}                    [w]
    layers/i/feed_forward/gate/kernel                       [w, f]          NomicBERT
    layers/i/feed_forward/up/{kernel,bias}                  [w, f], [f]     NomicBERT: no bias
    layers/i/feed_forward/down/{kernel,bias}                [f, w], [w]     NomicBERT: no bias
    layers/i/feed_forward_norm/{scale,bias}                 [w]

Parameters are float32. Matrix products run in config.compute_dtype; the sums of layer norm and softmax are float32.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, Key

from crops_jax.config import EncoderConfig
from crops_jax.devices.sharding import spread_lookup
from crops_jax.models.attention.api import Attend, attention_over
from crops_jax.models.attention.plain import positions
from crops_jax.models.attention.relative_bias import RelativeBias
from crops_jax.models.attention.rotary import rotations
from crops_jax.models.attention.self_attention import SelfAttention
from crops_jax.models.layers import GatedFeedForward, drop, exact_gelu, layer_norm, linear, split, table, through_layers


class Bert(nnx.Module):
    """A BERT tower. Padding is token -1 at any position; it does not change the state of any other token."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.remat = config.remat
        self.max_tokens = config.max_positions - config.position_offset
        self.position_offset = config.position_offset
        self.dtype = jnp.dtype(config.compute_dtype)
        self.token_embedding = _embedding(config.vocabulary_size, config, rngs)
        is_mpnet, is_nomic = config.family == "mpnet", config.family == "nomic_bert"
        self.position_embedding = None if is_nomic else _embedding(config.max_positions, config, rngs)
        self.head_width = config.width // config.heads
        self.rotary_base = config.rotary_base if is_nomic else None
        self.token_type_embedding = None if is_mpnet else _embedding(config.type_vocabulary_size, config, rngs)
        self.relative_bias = RelativeBias(config, rngs=rngs) if is_mpnet else None
        self.embedding_norm = _norm(config, rngs)
        self.layers = nnx.List([Layer(config, rngs=rngs) for _ in range(config.layers)])

    def __call__(
        self,
        tokens: Int32[Array, "texts tokens"],
        *,
        segments: Int32[Array, "texts tokens"] | None = None,
        token_types: Int32[Array, "texts tokens"] | None = None,
        dropout_key: Key[Array, ""] | None = None,
        flash: Mesh | None = None,
    ) -> Float[Array, "texts tokens width"]:
        """Returns the states of all tokens in config.compute_dtype; the states of padding have no meaning.

        Args:
          tokens: token ids padded with -1. Positions are counted from the left edge of the row or of the segment, so
            padding belongs at the right.
          segments: the number of the text that each token belongs to, if a row holds several texts
            (crops_jax.text.packing); tokens attend only within their own text. None: each row is one text.
          token_types: rows of the token type table, such as 1 in the second text of a pair; None: row 0 for all tokens.
            MPNet has no such table, and ignores them.
          dropout_key: the key of dropout at the rate config.dropout; None: no dropout.
          flash: the devices on which flash attention runs (crops_jax.models.attention.flash); None: plain attention.

        Raises ValueError if a row is one text and has more tokens than there are positions.
        """
        if segments is None and tokens.shape[1] > self.max_tokens:
            raise ValueError(f"at most {self.max_tokens} tokens a text have positions, found {tokens.shape[1]}")
        bias = None if self.relative_bias is None else self.relative_bias(tokens.shape[1])
        places, rotation = positions(tokens, segments), None
        if self.rotary_base is not None:
            rotation = rotations(places, width=self.head_width, base=self.rotary_base)
        attend = attention_over(tokens, segments, dropout=self.dropout, bias=bias, rotation=rotation, flash=flash)
        states = spread_lookup(self.token_embedding(jnp.maximum(tokens, 0)))
        added = jnp.zeros((), states.dtype)
        if self.position_embedding is not None:
            added = self.position_embedding(places + self.position_offset)
        if (types := self.token_type_embedding) is not None:
            added += types.embedding[0][None, None] if token_types is None else types(token_types)
        states += added
        keys = split(dropout_key, 1 + len(self.layers))
        states = drop(self.embedding_norm(states).astype(self.dtype), self.dropout, keys[0])
        return through_layers(self.layers, states, [attend] * len(self.layers), keys=keys[1:], remat=self.remat)


class Layer(nnx.Module):
    """A layer of self-attention and a feed-forward network. Each is added to its input, then the sum is normalised."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        has_biases = config.family != "nomic_bert"
        self.attention = SelfAttention(config, bias=has_biases, output_bias=has_biases, rngs=rngs)
        self.attention_norm = _norm(config, rngs)
        self.feed_forward = _feed_forward(config, rngs)
        self.feed_forward_norm = _norm(config, rngs)

    def __call__(
        self,
        states: Float[Array, "texts tokens width"],
        attend: Attend,
        *,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "texts tokens width"]:
        keys = split(dropout_key, 3)
        added = drop(self.attention(states, attend, dropout_key=keys[0]), self.dropout, keys[1])
        states = self.attention_norm(states + added).astype(states.dtype)
        added = drop(self.feed_forward(states), self.dropout, keys[2])
        return self.feed_forward_norm(states + added).astype(states.dtype)


class FeedForward(nnx.Module):
    """The feed-forward network down(GELU(up(x))), with the exact GELU (by erf)."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.up = linear(config.width, config.feed_forward_width, dtype=config.compute_dtype, rngs=rngs)
        self.down = linear(config.feed_forward_width, config.width, dtype=config.compute_dtype, rngs=rngs)

    def __call__(self, states: Float[Array, "texts tokens width"]) -> Float[Array, "texts tokens width"]:
        return self.down(exact_gelu(self.up(states)))


def _feed_forward(config: EncoderConfig, rngs: nnx.Rngs) -> FeedForward | GatedFeedForward:
    if config.family != "nomic_bert":
        return FeedForward(config, rngs=rngs)
    sizes = config.width, config.feed_forward_width
    return GatedFeedForward(*sizes, activation=jax.nn.silu, dtype=config.compute_dtype, rngs=rngs)


def _embedding(rows: int, config: EncoderConfig, rngs: nnx.Rngs) -> nnx.Embed:
    return table(rows, config.width, rngs=rngs)


def _norm(config: EncoderConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return layer_norm(config.width, epsilon=config.layer_norm_epsilon, rngs=rngs)
