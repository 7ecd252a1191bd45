"""Exact top-k over documents that lie on disk: memory for one block of them and one stretch of queries.

A block of documents is read from the mapped shards and searched by `exact_top_k`, whose scores are bit-equal whatever
the tiling; its best are merged with those of the blocks before. So the answer is that of one search over all
documents, for any size of block, number of devices and order of the shards.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float32, Int, Int32

from crops_jax.embeddings.stored_vectors import Shard
from crops_jax.retrieval.exact import exact_top_k

BLOCK_BYTES = 1 << 29
"""Documents in memory at once, by default."""
# Queries of one call of exact_top_k, after which progress is told.
_STRETCH = 4096
_TILE_DOCS = 1 << 16
# Scores of a tile of queries: 64 MiB, of which up to three are in memory at once.
_TILE_SCORES = 1 << 24


def mapped_top_k(
    queries: Float[Any, "queries dim"],
    shards: Sequence[Shard],
    k: int,
    *,
    order: Int[Any, "docs"] | None = None,
    mesh: Mesh | None = None,
    block_rows: int | None = None,
    progress: Callable[[int], Any] = lambda pairs: None,
) -> tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]]:
    """The k documents of greatest inner product with each query, best first; see exact_top_k.

    Args:
      queries: [queries, dim].
      shards: the documents, [rows, dim] each, mapped or in memory, or what gives float32 for some of its rows
        (crops_jax.embeddings.stored_vectors); document i is row i of all shards in order.
      k: 1 to the number of documents.
      order: the place of each document among equals, distinct integers; by default its index.
      mesh: devices to spread a block over. Never changes the answer.
      block_rows: documents in memory at once; by default 512 MiB of them. Never changes the answer.
      progress: is told the number of pairs scored since it was last told.

    Returns:
      scores float32 [queries, k] and indices int32 [queries, k].

    Raises:
      ValueError: as exact_top_k.
    """
    count = sum(len(shard) for shard in shards)
    if not 1 <= k <= count:
        raise ValueError(f"k must lie in 1 to the number of documents ({count}), found {k}")
    place = np.arange(count) if order is None else np.asarray(order)
    queries = np.asarray(queries, np.float32)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    indices = np.full((len(queries), k), -1, np.int32)
    block_rows = block_rows or max(_TILE_DOCS, BLOCK_BYTES // (4 * max(queries.shape[1], 1)))
    tile_queries = min(1024, max(1, _TILE_SCORES // (_TILE_DOCS + 2 * k)))
    for first, block in read_blocks(shards, block_rows):
        held = jnp.asarray(block)
        some = slice(first, first + len(block))
        for start in range(0, len(queries), _STRETCH):
            rows = slice(start, start + _STRETCH)
            found = exact_top_k(
                queries[rows],
                held,
                min(k, len(block)),
                order=place[some],
                mesh=mesh,
                tile_docs=_TILE_DOCS,
                tile_queries=tile_queries,
            )
            best = _merged((scores[rows], indices[rows]), (found[0], found[1] + np.int32(first)), place=place, k=k)
            scores[rows], indices[rows] = best
            progress(len(found[0]) * len(block))
    return scores, indices


def read_blocks(shards: Sequence[Shard], rows: int) -> Iterator[tuple[int, Float32[np.ndarray, "block dim"]]]:
    """The documents `rows` at a time, whatever the shards' sizes: the index of the first one, and a copy in memory."""
    count = sum(len(shard) for shard in shards)
    starts = np.cumsum([0, *(len(shard) for shard in shards)])
    for first in range(0, count, rows):
        last = min(first + rows, count)
        block = np.empty((last - first, shards[0].shape[1]), np.float32)
        for start, shard in zip(starts, shards):
            low, high = max(first, start), min(last, start + len(shard))
            if low < high:
                block[low - first : high - first] = shard[low - start : high - start]
        yield first, block


def take_rows(shards: Sequence[Shard], indices: Int[np.ndarray, "taken"]) -> Float32[np.ndarray, "taken dim"]:
    """Some documents by index, in that order."""
    starts = np.cumsum([0, *(len(shard) for shard in shards)])
    taken = np.empty((len(indices), shards[0].shape[1]), np.float32)
    for start, shard in zip(starts, shards):
        here = np.flatnonzero((indices >= start) & (indices < start + len(shard)))
        taken[here] = shard[indices[here] - start]
    return taken


def _merged(
    best: tuple[np.ndarray, np.ndarray], found: tuple[np.ndarray, np.ndarray], *, place: np.ndarray, k: int
) -> tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]]:
    scores, indices = (np.concatenate(parts, axis=1) for parts in zip(best, found, strict=True))
    # What has index -1 has score -inf, and stands last wherever it is placed.
    kept = np.lexsort((place[indices], -scores))[:, :k]
    return np.take_along_axis(scores, kept, 1), np.take_along_axis(indices, kept, 1)
