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

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, Key

from crops_jax.config import EncoderConfig
from crops_jax.devices.sharding import spread_lookup
from crops_jax.models.attention.api import attention_of_layers
from crops_jax.models.attention.self_attention import SelfAttention
from crops_jax.models.layers import PreNormLayer, drop, exact_gelu, layer_norm, split, table, through_layers


class ModernBert(nnx.Module):
    """A ModernBERT tower. Padding is token -1; it does not change the state of any other token."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.remat = config.remat
        self.max_tokens = config.max_positions
        self.head_width = config.width // config.heads
        self.rotary_bases = config.rotary_base, config.local_rotary_base
        self.local_window, self.global_layers = config.local_window, config.global_layers
        self.dtype = jnp.dtype(config.compute_dtype)
        self.token_embedding = table(config.vocabulary_size, config.width, rngs=rngs)
        self.embedding_norm = _norm(config, rngs)
        self.layers = nnx.List([_layer(config, is_first=i == 0, rngs=rngs) for i in range(config.layers)])
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
        attend = attention_of_layers(
            tokens,
            segments,
            global_layers=self.global_layers,
            rotary_bases=self.rotary_bases,
            head_width=self.head_width,
            window=self.local_window,
            dropout=self.dropout,
            flash=flash,
        )
        keys = split(dropout_key, 1 + len(self.layers))
        states = self.embedding_norm(spread_lookup(self.token_embedding(jnp.maximum(tokens, 0)))).astype(self.dtype)
        states = drop(states, self.dropout, keys[0])
        states = through_layers(self.layers, states, attend, keys=keys[1:], remat=self.remat)
        return self.final_norm(states).astype(self.dtype)


def _layer(config: EncoderConfig, *, is_first: bool, rngs: nnx.Rngs) -> PreNormLayer:
    return PreNormLayer(
        config,
        norm=lambda: _norm(config, rngs),
        attention=lambda: SelfAttention(config, rngs=rngs),
        activation=exact_gelu,
        normalises_inputs=not is_first,
        rngs=rngs,
    )


def _norm(config: EncoderConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return layer_norm(config.width, epsilon=config.layer_norm_epsilon, bias=False, rngs=rngs)
