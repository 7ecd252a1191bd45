"""A learnt bias of attention scores for each head and each bucket of distances between two tokens, as MPNet has it.

It is the bias of T5 (Raffel et al., JMLR 2020, arXiv 1910.10683, section 2.1). One table serves all layers of a tower.
"""

import math

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int32

from crops_jax.config import EncoderConfig
from crops_jax.models.layers import TRUNCATED_NORMAL

_GREATEST_DISTANCE = 128
"""The distance from which all tokens are in the last bucket of their side."""


class RelativeBias(nnx.Module):
    """The table of biases, [relative_buckets, heads]."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.buckets = config.relative_buckets
        shape = (config.relative_buckets, config.heads)
        self.embedding = nnx.Param(TRUNCATED_NORMAL(rngs.params(), shape, jnp.float32))

    def __call__(self, tokens: int) -> Float[Array, "heads tokens tokens"]:
        """Returns the bias of query token q and key token k of a row at [head, q, k].

        The texts of a packed row are contiguous, so that the columns of two tokens of one text are as far apart as
        their positions.
        """
        columns = np.arange(tokens)
        bucket = distance_buckets(columns[None, :] - columns[:, None], buckets=self.buckets)
        return self.embedding[...][bucket].transpose(2, 0, 1)


def distance_buckets(distance: Int32[np.ndarray, "..."], *, buckets: int) -> Int32[np.ndarray, "..."]:
    """Returns the bucket of each distance, key position minus query position.

    Half of the buckets are for keys after the query. On each side, half of the buckets are for one distance each, and
    the other half for ranges whose ends grow by a constant factor up to a distance of 128.
    """
    side = buckets // 2
    exact = side // 2
    size = np.abs(distance)
    # transformers computes in float32, which decides at the ends of the ranges.
    growth = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact))
    growth = growth / np.float32(math.log(_GREATEST_DISTANCE / exact)) * np.float32(side - exact)
    ranged = np.minimum(exact + growth.astype(np.int32), side - 1)
    return (np.where(size < exact, size, ranged) + side * (distance > 0)).astype(np.int32)
