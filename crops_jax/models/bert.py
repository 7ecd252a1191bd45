"""A BERT-family text encoder: token ids in, token states out.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", NAACL 2019
(arXiv 1810.04805): learnt absolute positions, post-layer-norm blocks, exact GELU. RoBERTa and XLM-R are the same tower
whose first position is row `config.position_offset` of the position table.

Parameter paths below a tower (i counts layers; w = width, f = feed_forward_width):

    token_embedding/embedding                               [vocabulary_size, w]
    position_embedding/embedding                            [max_positions, w]
    token_type_embedding/embedding                          [type_vocabulary_size, w]
    embedding_norm/{scale,bias}                             [w]
    layers/i/attention/{query,key,value}/{kernel,bias}      [w, w], [w]     columns are heads
    layers/i/attention/output/{kernel,bias}                 [w, w], [w]     rows are heads
    layers/i/attention_norm/{scale,bias}                    [w]
    layers/i/feed_forward/up/{kernel,bias}                  [w, f], [f]
    layers/i/feed_forward/down/{kernel,bias}                [f, w], [w]
    layers/i/feed_forward_norm/{scale,bias}                 [w]

Parameters are float32. Matrix products run in config.compute_dtype; sums inside layer norm and softmax are float32.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32, Key

from crops_jax.config import EncoderConfig

# Devlin et al. initialise every matrix so.
_INITIALIZER = nnx.initializers.truncated_normal(stddev=0.02)
# Added where attention must not look: finite, so that a row of nothing but padding stays free of NaN.
_MASKED = -1e30


class Bert(nnx.Module):
    """The tower. Padding is token -1, wherever it stands; it changes the state of no other token."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.max_tokens = config.max_positions - config.position_offset
        self.position_offset = config.position_offset
        self.dtype = jnp.dtype(config.compute_dtype)
        self.token_embedding = _embedding(config.vocabulary_size, config, rngs)
        self.position_embedding = _embedding(config.max_positions, config, rngs)
        self.token_type_embedding = _embedding(config.type_vocabulary_size, config, rngs)
        self.embedding_norm = _norm(config, rngs)
        self.layers = nnx.List([Layer(config, rngs=rngs) for _ in range(config.layers)])

    def __call__(
        self, tokens: Int32[Array, "texts tokens"], *, dropout_key: Key[Array, ""] | None = None
    ) -> Float[Array, "texts tokens width"]:
        """States of all tokens, in config.compute_dtype; those of padding mean nothing.

        Args:
          tokens: ids padded with -1. Positions are counted from the left edge, so padding belongs at the right.
          dropout_key: a key for dropout at config.dropout; None: no dropout.

        Raises ValueError when there are more tokens than positions.
        """
        if tokens.shape[1] > self.max_tokens:
            raise ValueError(f"at most {self.max_tokens} tokens a text fit the position table, found {tokens.shape[1]}")
        mask = tokens >= 0
        positions = jnp.arange(tokens.shape[1]) + self.position_offset
        states = self.token_embedding(jnp.where(mask, tokens, 0))
        states += self.position_embedding(positions)[None] + self.token_type_embedding.embedding[0][None, None]
        keys = _split(dropout_key, 1 + len(self.layers))
        states = _drop(self.embedding_norm(states).astype(self.dtype), self.dropout, keys[0])
        for layer, key in zip(self.layers, keys[1:], strict=True):
            states = layer(states, mask, dropout_key=key)
        return states


class Layer(nnx.Module):
    """Self-attention and a feed-forward network, each added to its input and normalised after."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.attention = Attention(config, rngs=rngs)
        self.attention_norm = _norm(config, rngs)
        self.feed_forward = FeedForward(config, rngs=rngs)
        self.feed_forward_norm = _norm(config, rngs)

    def __call__(
        self,
        states: Float[Array, "texts tokens width"],
        mask: Bool[Array, "texts tokens"],
        *,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "texts tokens width"]:
        keys = _split(dropout_key, 3)
        added = _drop(self.attention(states, mask, dropout_key=keys[0]), self.dropout, keys[1])
        states = self.attention_norm(states + added).astype(states.dtype)
        added = _drop(self.feed_forward(states), self.dropout, keys[2])
        return self.feed_forward_norm(states + added).astype(states.dtype)


class Attention(nnx.Module):
    """Multi-head self-attention over the tokens that are not padding."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.heads = config.heads
        self.dropout = config.dropout
        self.query = _linear(config.width, config.width, config, rngs)
        self.key = _linear(config.width, config.width, config, rngs)
        self.value = _linear(config.width, config.width, config, rngs)
        self.output = _linear(config.width, config.width, config, rngs)

    def __call__(
        self,
        states: Float[Array, "texts tokens width"],
        mask: Bool[Array, "texts tokens"],
        *,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "texts tokens width"]:
        texts, tokens, width = states.shape
        by_head = (texts, tokens, self.heads, width // self.heads)
        query, key, value = (
            project(states).reshape(by_head).transpose(0, 2, 1, 3) for project in (self.query, self.key, self.value)
        )
        precision = _precision(states.dtype)
        logits = jnp.einsum("nhqd,nhkd->nhqk", query, key, precision=precision, preferred_element_type=jnp.float32)
        logits = jnp.where(mask[:, None, None, :], logits / (width // self.heads) ** 0.5, _MASKED)
        weights = _drop(jax.nn.softmax(logits, axis=-1).astype(states.dtype), self.dropout, dropout_key)
        mixed = jnp.einsum("nhqk,nhkd->nhqd", weights, value, precision=precision)
        return self.output(mixed.transpose(0, 2, 1, 3).reshape(texts, tokens, width))


class FeedForward(nnx.Module):
    """down(GELU(up(x))), with the exact GELU (by erf)."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.up = _linear(config.width, config.feed_forward_width, config, rngs)
        self.down = _linear(config.feed_forward_width, config.width, config, rngs)

    def __call__(self, states: Float[Array, "texts tokens width"]) -> Float[Array, "texts tokens width"]:
        return self.down(jax.nn.gelu(self.up(states), approximate=False))


def _precision(dtype: jnp.dtype) -> jax.lax.Precision | None:
    # Otherwise "float32" would mean TF32 on GPUs and bfloat16 passes on TPUs; who wants speed asks for bfloat16.
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


def _linear(inputs: int, outputs: int, config: EncoderConfig, rngs: nnx.Rngs) -> nnx.Linear:
    dtype = jnp.dtype(config.compute_dtype)
    return nnx.Linear(
        inputs,
        outputs,
        dtype=dtype,
        precision=_precision(dtype),
        kernel_init=_INITIALIZER,
        param_dtype=jnp.float32,
        rngs=rngs,
    )


def _embedding(rows: int, config: EncoderConfig, rngs: nnx.Rngs) -> nnx.Embed:
    return nnx.Embed(
        rows, config.width, dtype=jnp.float32, param_dtype=jnp.float32, embedding_init=_INITIALIZER, rngs=rngs
    )


def _norm(config: EncoderConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The fast variance, E[x^2] - E[x]^2, cancels when the mean is large.
    return nnx.LayerNorm(
        config.width,
        epsilon=config.layer_norm_epsilon,
        dtype=jnp.float32,
        param_dtype=jnp.float32,
        use_fast_variance=False,
        rngs=rngs,
    )


def _split(key: Key[Array, ""] | None, count: int) -> list:
    return [None] * count if key is None else list(jax.random.split(key, count))


def _drop(values: Float[Array, "..."], rate: float, key: Key[Array, ""] | None) -> Float[Array, "..."]:
    if key is None or rate == 0:
        return values
    kept = jax.random.bernoulli(key, 1 - rate, values.shape)
    return jnp.where(kept, values / (1 - rate), 0)
