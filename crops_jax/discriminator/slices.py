"""Which pairs fit a discriminator, which calibrate it and which measure it: slices of the queries by hash."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from crops_jax.hashing import sha256_bucket
from crops_jax.text import normalise_query

_BUCKETS = 10


class Borders(NamedTuple):
    """Of ten buckets of queries, those below `train_below` train and those below `temperature_below` fit T.

    digits: those of the SHA-256 that decide (`sha256_bucket`).
    """

    train_below: int
    temperature_below: int
    digits: tuple[int, int]


LEXICAL = Borders(train_below=6, temperature_below=8, digits=(8, 16))
CROSS_ENCODER = Borders(train_below=8, temperature_below=9, digits=(16, 24))
"""Its digits are others, so that each of its slices has queries of every bucket of the lexical discriminator, which is
fitted on the pairs that train the cross-encoder."""


class Slices(NamedTuple):
    """Masks of pairs. apart: whether train, temperature and measure are of different queries."""

    train: Bool[np.ndarray, "pairs"]
    temperature: Bool[np.ndarray, "pairs"]
    measure: Bool[np.ndarray, "pairs"]
    apart: bool


def slices(queries: Sequence[str], targets: Float64[np.ndarray, "pairs"], borders: Borders) -> Slices:
    """Which pairs train and which are held out, by hash of the normalised query.

    Where a slice would be empty or have one target only, all three are all pairs, and `apart` is False.
    """
    bucket_of = {
        query: sha256_bucket(normalise_query(query), buckets=_BUCKETS, digits=borders.digits)
        for query in dict.fromkeys(queries)
    }
    buckets = np.array([bucket_of[query] for query in queries], np.int64)
    train, measure = buckets < borders.train_below, buckets >= borders.temperature_below
    found = Slices(train, ~train & ~measure, measure, apart=True)
    if all(mask.any() and targets[mask].min() < targets[mask].max() for mask in found[:3]):
        return found
    everything = np.ones(len(targets), bool)
    return Slices(everything, everything, everything, apart=False)
