"""Chooses the documents of a query that enter a batch, at random, as a pure function of (seed, position)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64, UInt64

from crops_jax.hashing import seed_hash, splitmix64
from crops_jax.labels import Level

_MAX_DRAW = np.uint64(2**64 - 1)


def choose_documents(
    levels: Sequence[Int32[np.ndarray, "documents"]],
    *,
    positions: Int64[np.ndarray, "queries"],
    seed: int,
    columns: int,
    positives: int = 0,
) -> list[list[int]]:
    """Returns the numbers of the documents of each record that enter a batch, at most `columns` of them.

    From a record with more documents, a random one of the highest level is chosen first, so that every query keeps a
    positive if it has one. The others are chosen at random from all that remain. (seed, position) decides the choice,
    so that epochs choose different documents.

    Args:
      levels: the levels of the documents of each record.
      positions: the position of each query in the run.
      seed: the seed of the run.
      columns: the maximum number of documents of a record.
      positives: the maximum number of them that are positives (levels 4 and 5); 0 for any number. The first one is the
        one that is chosen first, as in every other case.
    """
    counts = np.array([len(documents) for documents in levels], np.int64)
    if not counts.size or (counts.max() <= columns and not positives):
        return [list(range(count)) for count in counts.tolist()]
    padded = np.full((len(levels), counts.max()), -1, np.int32)
    for row, documents in enumerate(levels):
        padded[row, : len(documents)] = documents
    draws = _draws(seed, positions, padded.shape[1])
    highest = padded == padded.max(axis=1, keepdims=True)
    first = np.where(highest, draws, _MAX_DRAW).argmin(axis=1)
    # The documents with the smallest draws are chosen. Each document is drawn again here, because documents of the
    # highest level that were not first have large draws.
    others = np.where(padded < 0, _MAX_DRAW, splitmix64(draws))
    others[np.arange(len(levels)), first] = 0
    order = others.argsort(axis=1, kind="stable")
    if positives:
        return _with_few_positives(order, padded, columns=columns, positives=positives)
    drawn = order[:, :columns].tolist()
    return [list(range(count)) if count <= columns else row for row, count in zip(drawn, counts.tolist())]


def _with_few_positives(
    order: Int64[np.ndarray, "queries width"],
    levels: Int32[np.ndarray, "queries width"],
    *,
    columns: int,
    positives: int,
) -> list[list[int]]:
    """Returns the first `columns` documents of each row of `order`, without the positives after the first `positives`.

    The level -1 is padding.
    """
    ordered = np.take_along_axis(levels, order, axis=1)
    positive = ordered >= Level.POSITIVE
    kept = (ordered >= 0) & (~positive | (positive.cumsum(axis=1) <= positives))
    return [row[keep][:columns].tolist() for row, keep in zip(order, kept, strict=True)]


def _draws(seed: int, positions: Int64[np.ndarray, "queries"], width: int) -> UInt64[np.ndarray, "queries width"]:
    """Returns SplitMix64 of seed, position and column: the same numbers on every platform and in every version."""
    rows = splitmix64(positions.astype(np.uint64) ^ seed_hash(seed))
    return splitmix64(rows[:, None] ^ splitmix64(np.arange(width, dtype=np.uint64))[None, :])
