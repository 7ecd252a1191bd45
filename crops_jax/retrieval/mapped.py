"""Exact top-k over documents on disk. Memory holds one block of documents and some queries at a time.

A block of documents is read from the mapped shards and searched by `exact_top_k`, whose scores are bit-equal for every
tiling, and its best documents are merged with those of the earlier blocks. The result is therefore that of one search
over all documents, for any size of block, number of devices and order of the shards.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float32, Int, Int32

from crops_jax.embeddings.stored_vectors import Shard
from crops_jax.retrieval.exact import check_k, exact_top_k

BLOCK_BYTES = 1 << 29
"""The default size of the documents that are in memory at once."""
# The number of queries in one call of exact_top_k, after which progress is reported.
_QUERIES_AT_ONCE = 4096
_TILE_DOCS = 1 << 16
# The number of scores in a tile of queries: 64 MiB, of which up to three are in memory at once.
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
    """Returns the k documents with the greatest inner product with each query, best first; see exact_top_k.

    Args:
      queries: embeddings [queries, dim].
      shards: the documents as arrays [rows, dim], mapped or in memory, or as objects that return float32 for some of
        their rows (crops_jax.embeddings.stored_vectors); document i is row i of all shards in order.
      k: the number of documents for each query, from 1 to the number of documents.
      order: a distinct integer for each document; of documents with equal scores the lower integer is first. By default
        it is the document's index.
      mesh: the devices over which a block is split. It never changes the result.
      block_rows: the number of documents in memory at once; by default 512 MiB of them. It never changes the result.
      progress: a function that is called with the number of pairs that were scored since its last call.

    Returns:
      scores float32 [queries, k] and indices int32 [queries, k].

    Raises:
      ValueError: the same errors as exact_top_k.
    """
    count = sum(len(shard) for shard in shards)
    check_k(k, count)
    ranks = np.arange(count) if order is None else np.asarray(order)
    queries = np.asarray(queries, np.float32)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    indices = np.full((len(queries), k), -1, np.int32)
    block_rows = block_rows or max(_TILE_DOCS, BLOCK_BYTES // (4 * max(queries.shape[1], 1)))
    tile_queries = min(1024, max(1, _TILE_SCORES // (_TILE_DOCS + 2 * k)))
    for first, block in read_blocks(shards, block_rows):
        documents = jnp.asarray(block)
        block_slice = slice(first, first + len(block))
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            rows = slice(start, start + _QUERIES_AT_ONCE)
            block_best = exact_top_k(
                queries[rows],
                documents,
                min(k, len(block)),
                order=ranks[block_slice],
                mesh=mesh,
                tile_docs=_TILE_DOCS,
                tile_queries=tile_queries,
            )
            best = _merge(
                (scores[rows], indices[rows]), (block_best[0], block_best[1] + np.int32(first)), ranks=ranks, k=k
            )
            scores[rows], indices[rows] = best
            progress(len(block_best[0]) * len(block))
    return scores, indices


def read_blocks(shards: Sequence[Shard], rows: int) -> Iterator[tuple[int, Float32[np.ndarray, "block dim"]]]:
    """Yields blocks of `rows` documents, for any sizes of the shards: the index of the first document, and a copy."""
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
    """Returns documents by index, in the order of `indices`."""
    starts = np.cumsum([0, *(len(shard) for shard in shards)])
    taken = np.empty((len(indices), shards[0].shape[1]), np.float32)
    for start, shard in zip(starts, shards):
        positions = np.flatnonzero((indices >= start) & (indices < start + len(shard)))
        taken[positions] = shard[indices[positions] - start]
    return taken


def _merge(
    best: tuple[np.ndarray, np.ndarray], block_best: tuple[np.ndarray, np.ndarray], *, ranks: np.ndarray, k: int
) -> tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]]:
    scores, indices = (np.concatenate(parts, axis=1) for parts in zip(best, block_best, strict=True))
    # An entry with index -1 has score -inf, so it is last whatever rank it gets.
    kept = np.lexsort((ranks[indices], -scores))[:, :k]
    return np.take_along_axis(scores, kept, 1), np.take_along_axis(indices, kept, 1)
