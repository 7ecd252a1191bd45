"""Chooses the documents of a query that enter a batch, at random, as a pure function of (seed, position)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64, UInt64

from crops_jax.hashing import seed_hash, splitmix64

_MAX_DRAW = np.uint64(2**64 - 1)


def choose_documents(
    levels: Sequence[Int32[np.ndarray, "documents"]],
    *,
    positions: Int64[np.ndarray, "queries"],
    seed: int,
    columns: int,
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
    """
    counts = np.array([len(documents) for documents in levels], np.int64)
    if not counts.size or counts.max() <= columns:
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
    order = others.argsort(axis=1, kind="stable")[:, :columns].tolist()
    return [list(range(count)) if count <= columns else row for row, count in zip(order, counts.tolist())]


def _draws(seed: int, positions: Int64[np.ndarray, "queries"], width: int) -> UInt64[np.ndarray, "queries width"]:
    """Returns SplitMix64 of seed, position and column: the same numbers on every platform and in every version."""
    rows = splitmix64(positions.astype(np.uint64) ^ seed_hash(seed))
    return splitmix64(rows[:, None] ^ splitmix64(np.arange(width, dtype=np.uint64))[None, :])
