"""A tower without attention: hashed features of a text are looked up, averaged and passed through a network.

The second encoder of CroPS (arXiv 2511.15443), an MLP over concatenated embeddings of hashed ID features (Weinberger
et al. 2009, arXiv 0902.2206). A text is its token ids t_0 to t_(n-1), special tokens included; it has the features

    unigrams    M(0; t_i)                                   for each token
    bigrams     M(1; t_i, t_(i+1))                          for each pair of neighbours; a text of one token has none
    text        F(sum over i of M(2; t_i, i) mod 2^32)      one: the text's identity, as an item's ID in production

where M(s; words) is MurmurHash3_x86_32 with seed s of the words as 4 bytes each, least first, and F its finaliser. A
feature is row (hash mod hash_buckets) of a table of its own; unigrams are row t_i itself where there are as many
buckets as tokens. The rows of a text are averaged feature by feature, the averages stand side by side, and hidden
layers with ReLU and a last linear layer follow. A text that training never saw finds the row of its identity as it was
drawn, or that of a text with the same bucket: `text` pays where the same queries and documents come again.

Parameter paths below a tower (w = width, f = feed_forward_width, e = feature_width; i counts layers):

    feature_tables/{unigrams,bigrams,text}/embedding        [hash_buckets, e]
    layers/i/{kernel,bias}                                  [features * e or f, f], [f]
    output/{kernel,bias}                                    [f, w], [w]

Parameters are float32. Lookups and averages are float32; matrix products run in config.compute_dtype. Over a mesh the
tables are split and the network, which is small, is not: XLA's partitioner makes wrong gradients of both split at once
over three axes (jax 0.10.2).
"""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32, Key, UInt32

from crops_jax.config import EncoderConfig
from crops_jax.hashing import finalised, murmur3
from crops_jax.models.attention.plain import positions
from crops_jax.models.layers import drop, linear, split
from crops_jax.models.pooling import pool_segments

_SEEDS = {"unigrams": 0, "bigrams": 1, "text": 2}
_TABLE = nnx.initializers.normal(stddev=0.02)
# He et al. 2015, for ReLU.
_KERNEL = nnx.initializers.he_normal()


class Hashed(nnx.Module):
    """The tower. A text sees nothing of the others in its row; padding is token -1."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.dtype = jnp.dtype(config.compute_dtype)
        self.features = config.hashed_features
        self.buckets = config.hash_buckets
        self.keeps_tokens = config.hash_buckets >= config.vocabulary_size

        def table() -> nnx.Embed:
            sizes = config.hash_buckets, config.feature_width
            return nnx.Embed(*sizes, dtype=jnp.float32, param_dtype=jnp.float32, embedding_init=_TABLE, rngs=rngs)

        def layer(inputs: int, outputs: int) -> nnx.Linear:
            return linear(inputs, outputs, dtype=config.compute_dtype, initializer=_KERNEL, rngs=rngs)

        self.feature_tables = nnx.Dict({feature: table() for feature in self.features})
        widths = [len(self.features) * config.feature_width, *[config.feed_forward_width] * config.layers]
        self.layers = nnx.List([layer(*sizes) for sizes in itertools.pairwise(widths)])
        self.output = layer(widths[-1], config.width)

    def __call__(
        self,
        tokens: Int32[Array, "rows tokens"],
        *,
        segments: Int32[Array, "rows tokens"],
        most: int,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "rows most width"]:
        """One vector of each text, in config.compute_dtype; zeros where a segment has no tokens.

        Args:
          tokens, segments: see crops_jax.text.packing.PackedTexts.
          most: places for texts in a row.
          dropout_key: a key for dropout at config.dropout of what enters each hidden layer; None: no dropout.
        """
        averages = [self._average(feature, tokens, segments, most=most) for feature in self.features]
        states = jnp.concatenate(averages, axis=-1).astype(self.dtype)
        for layer, key in zip(self.layers, split(dropout_key, len(self.layers)), strict=True):
            states = jax.nn.relu(layer(drop(states, self.dropout, key)))
        return jnp.where(_members(segments, most=most).any(axis=2)[:, :, None], self.output(states), 0)

    def _average(self, feature: str, tokens: Array, segments: Array, *, most: int) -> Float[Array, "rows most columns"]:
        table = self.feature_tables[feature]
        if feature == "text":
            return table(bucket(identities(tokens, segments, most=most), self.buckets))
        if feature == "bigrams":
            # A pair belongs to the text of both its tokens, or to none.
            pairs = tokens[:, :-1], tokens[:, 1:]
            rows = bucket(murmur3(*pairs, seed=_SEEDS[feature]), self.buckets)
            owners = jnp.where(segments[:, :-1] == segments[:, 1:], segments[:, :-1], -1)
        else:
            rows = tokens if self.keeps_tokens else bucket(murmur3(tokens, seed=_SEEDS[feature]), self.buckets)
            owners = segments
        return pool_segments(table(jnp.where(owners < 0, 0, rows)), owners, pooling="mean", most=most)


def identities(
    tokens: Int32[Array, "rows tokens"], segments: Int32[Array, "rows tokens"], *, most: int
) -> UInt32[Array, "rows most"]:
    """A hash of each text as a whole: of its tokens in their order, wherever it stands in its row."""
    hashes = murmur3(tokens, positions(tokens, segments), seed=_SEEDS["text"])
    # Whole numbers modulo 2^32: their sum does not depend on its order.
    return finalised(jnp.where(_members(segments, most=most), hashes[:, None, :], 0).sum(axis=2, dtype=jnp.uint32))


def bucket(hashes: UInt32[Array, "..."], buckets: int) -> Int32[Array, "..."]:
    """Of `buckets` equally likely ones."""
    return (hashes % jnp.uint32(buckets)).astype(jnp.int32)


def _members(segments: Int32[Array, "rows tokens"], *, most: int) -> Array:
    return segments[:, None, :] == jnp.arange(most)[None, :, None]
