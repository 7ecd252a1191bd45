"""The hashed tower, which has no attention. It looks up hashed features of a text and maps their averages by a network.

It is the second encoder of CroPS (arXiv 2511.15443): an MLP over concatenated embeddings of hashed ID features
(Weinberger et al. 2009, arXiv 0902.2206). A text is its token ids t_0 to t_(n-1), special tokens included. Its features
are

    unigrams    M(0; t_i)                                   one for each token
    bigrams     M(1; t_i, t_(i+1))                          one for each two neighbours; none in a text of one token
    text        F(sum over i of M(2; t_i, i) mod 2^32)      one for the text: its identity, like an item's ID

where M(s; words) is MurmurHash3_x86_32 with seed s of the words as 4 bytes each in little-endian order, and F is its
finaliser. Each kind of feature has a table of its own, and a feature is its row (hash mod hash_buckets); a unigram is
row t_i itself if the table has as many buckets as the vocabulary has tokens. The rows of a text are averaged for each
kind, the averages are concatenated, and hidden layers with ReLU and a last linear layer follow. A text that training
never saw gets the row of its identity as it was initialised, or as another text of the same bucket trained it: `text`
helps if the same queries and documents occur again.

The parameter paths below a tower are (w = width, f = feed_forward_width, e = feature_width; i counts layers):

    feature_tables/{unigrams,bigrams,text}/embedding        [hash_buckets, e]
    layers/i/{kernel,bias}                                  [features * e or f, f], [f]
    output/{kernel,bias}                                    [f, w], [w]

Parameters are float32. Lookups and averages are float32; matrix products run in config.compute_dtype. Over a mesh the
tables are split and the network, which is small, is not: XLA's partitioner computes wrong gradients if both are split
over three axes (jax 0.10.2).
"""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32, Key, UInt32

from crops_jax.config import EncoderConfig
from crops_jax.devices.hashing import finalised, murmur3
from crops_jax.models.attention.plain import positions
from crops_jax.models.layers import drop, linear, split
from crops_jax.models.pooling import pool_segments, segment_members

_SEEDS = {"unigrams": 0, "bigrams": 1, "text": 2}
_TABLE = nnx.initializers.normal(stddev=0.02)
# The initialisation for ReLU of He et al. 2015.
_KERNEL = nnx.initializers.he_normal()


class Hashed(nnx.Module):
    """A hashed tower. The vector of a text does not depend on other texts in its row; padding is token -1."""

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
        max_segments: int,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "rows max_segments width"]:
        """Returns one vector for each text in config.compute_dtype; segments without tokens get zeros.

        Args:
          tokens, segments: see crops_jax.text.packing.PackedTexts.
          max_segments: the number of segments in a row, including empty ones.
          dropout_key: the key of dropout at the rate config.dropout before each hidden layer; None: no dropout.
        """
        averages = [self._average(feature, tokens, segments, max_segments=max_segments) for feature in self.features]
        states = jnp.concatenate(averages, axis=-1).astype(self.dtype)
        for layer, key in zip(self.layers, split(dropout_key, len(self.layers)), strict=True):
            states = jax.nn.relu(layer(drop(states, self.dropout, key)))
        return jnp.where(
            segment_members(segments, max_segments=max_segments).any(axis=2)[:, :, None], self.output(states), 0
        )

    def _average(
        self, feature: str, tokens: Array, segments: Array, *, max_segments: int
    ) -> Float[Array, "rows max_segments columns"]:
        table = self.feature_tables[feature]
        if feature == "text":
            return table(bucket(identities(tokens, segments, max_segments=max_segments), self.buckets))
        if feature == "bigrams":
            # A bigram belongs to a text only if both its tokens do.
            pairs = tokens[:, :-1], tokens[:, 1:]
            rows = bucket(murmur3(*pairs, seed=_SEEDS[feature]), self.buckets)
            owners = jnp.where(segments[:, :-1] == segments[:, 1:], segments[:, :-1], -1)
        else:
            rows = tokens if self.keeps_tokens else bucket(murmur3(tokens, seed=_SEEDS[feature]), self.buckets)
            owners = segments
        return pool_segments(table(jnp.where(owners < 0, 0, rows)), owners, pooling="mean", max_segments=max_segments)


def identities(
    tokens: Int32[Array, "rows tokens"], segments: Int32[Array, "rows tokens"], *, max_segments: int
) -> UInt32[Array, "rows max_segments"]:
    """Returns a hash of each text: of its tokens in their order, independent of its position in the row."""
    hashes = murmur3(tokens, positions(tokens, segments), seed=_SEEDS["text"])
    # These are integers modulo 2^32, so the order of the summation does not change the sum.
    return finalised(
        jnp.where(segment_members(segments, max_segments=max_segments), hashes[:, None, :], 0).sum(
            axis=2, dtype=jnp.uint32
        )
    )


def bucket(hashes: UInt32[Array, "..."], buckets: int) -> Int32[Array, "..."]:
    """Returns the bucket of each hash, from 0 to buckets - 1; random hashes are equally likely in each bucket."""
    return (hashes % jnp.uint32(buckets)).astype(jnp.int32)
