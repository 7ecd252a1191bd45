"""Slices of the queries by hash, whose pairs train a discriminator, calibrate it and measure it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from crops_jax.hashing import sha256_bucket
from crops_jax.text import normalise_query

_BUCKETS = 10


class Borders(NamedTuple):
    """The borders of the slices. The hash of a query is in one of ten buckets.

    train_below: buckets below this one train. temperature_below: the next buckets, below this one, fit the temperature
    T; the other buckets measure. digits: the digits of the SHA-256 that decide the bucket (`sha256_bucket`).
    """

    train_below: int
    temperature_below: int
    digits: tuple[int, int]


LEXICAL = Borders(train_below=6, temperature_below=8, digits=(8, 16))
CROSS_ENCODER = Borders(train_below=8, temperature_below=9, digits=(16, 24))
"""The borders of the cross-encoder. Its digits differ from those of the lexical discriminator, which is fitted on the
pairs that train the cross-encoder, so that each of its slices has queries of every bucket of the lexical one."""


class Slices(NamedTuple):
    """The masks of the pairs of the three slices. apart: whether the slices have different queries."""

    train: Bool[np.ndarray, "pairs"]
    temperature: Bool[np.ndarray, "pairs"]
    measure: Bool[np.ndarray, "pairs"]
    apart: bool


def slices(queries: Sequence[str], targets: Float64[np.ndarray, "pairs"], borders: Borders) -> Slices:
    """Returns the slices of pairs by a hash of the normalised query.

    If a slice would be empty or have only one target, each slice is all pairs, and `apart` is False.

    Args:
      queries: the query of each pair.
      targets: the target of each pair in [0, 1].
      borders: LEXICAL or CROSS_ENCODER.
    """
    bucket_of = {
        query: sha256_bucket(normalise_query(query), buckets=_BUCKETS, digits=borders.digits)
        for query in dict.fromkeys(queries)
    }
    buckets = np.array([bucket_of[query] for query in queries], np.int64)
    train, measure = buckets < borders.train_below, buckets >= borders.temperature_below
    separate = Slices(train, ~train & ~measure, measure, apart=True)
    if all(mask.any() and targets[mask].min() < targets[mask].max() for mask in separate[:3]):
        return separate
    everything = np.ones(len(targets), bool)
    return Slices(everything, everything, everything, apart=False)
