"""Which documents of a query enter a batch: by chance, as a pure function of (seed, position)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64, UInt64

from crops_jax.hashing import seed_hash, splitmix64

_GREATEST_CHANCE = np.uint64(2**64 - 1)


def choose_documents(
    levels: Sequence[Int32[np.ndarray, "documents"]],
    *,
    positions: Int64[np.ndarray, "queries"],
    seed: int,
    columns: int,
) -> list[list[int]]:
    """Which documents of each record enter a batch: numbers within the record, at most `columns` of them.

    A record with more documents gives one of its highest level first, so that a query never goes without a positive
    it has, and then any others; all by chance, decided by (seed, position), so that every epoch takes others.
    """
    counts = np.array([len(one) for one in levels], np.int64)
    if not counts.size or counts.max() <= columns:
        return [list(range(count)) for count in counts.tolist()]
    padded = np.full((len(levels), counts.max()), -1, np.int32)
    for row, one in enumerate(levels):
        padded[row, : len(one)] = one
    chances = _chances(seed, positions, padded.shape[1])
    highest = padded == padded.max(axis=1, keepdims=True)
    first = np.where(highest, chances, _GREATEST_CHANCE).argmin(axis=1)
    # Drawn anew: the highest ones that were not first have higher chances than the others.
    others = np.where(padded < 0, _GREATEST_CHANCE, splitmix64(chances))
    others[np.arange(len(levels)), first] = 0
    order = others.argsort(axis=1, kind="stable")[:, :columns].tolist()
    return [list(range(count)) if count <= columns else row for row, count in zip(order, counts.tolist())]


def _chances(seed: int, positions: Int64[np.ndarray, "queries"], width: int) -> UInt64[np.ndarray, "queries width"]:
    """SplitMix64 of seed, position and column: the same on every platform and version."""
    rows = splitmix64(positions.astype(np.uint64) ^ seed_hash(seed))
    return splitmix64(rows[:, None] ^ splitmix64(np.arange(width, dtype=np.uint64))[None, :])
