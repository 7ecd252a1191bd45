"""Exact top-k by inner product: the same documents, scores and order for any tiling, device count and corpus order.

Matrix products are not bit-equal across tilings, because the order of their sums depends on shapes. They only select
candidates.

1. Documents are scored tile by tile. The candidates, the best k documents and some more of each query, are kept; the
   matrix of scores is never stored.
2. The candidate pairs are scored again, pair by pair. Products in float32 are summed by halving, in an order that
   depends only on the dimension. Products and sums are separate programs, because in one program the compiler can fuse
   a product and a sum into a multiply-add for some shapes and not for others.
3. Of documents with equal scores, the one with the lower number in `order` is first.
4. A document that is no candidate can belong to the top k only because of rounding. If the bound on rounding does not
   exclude this (for example, with equal documents around rank k), the query is searched again with more candidates, and
   in the last search every document of the corpus is scored for it as in step 2.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, Float32, Int, Int32, Int64

_UNIT_ROUNDOFF = 2.0**-24
# The floats in one chunk of gathered pairs: 32 MiB, which the caches of a processor hold in large part.
_PAIR_FLOATS = 1 << 23
# The number of columns in a group, of which a selection first compares the maxima; and the maximum size of one
# selection, as a multiple of the number of selected scores.
_GROUP = 8
_SELECTED_AT_ONCE = 16
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def exact_top_k(
    queries: Float[Any, "queries dim"],
    docs: Float[Any, "docs dim"],
    k: int,
    *,
    order: Int[Any, "docs"] | None = None,
    mesh: Mesh | None = None,
    tile_docs: int = 1 << 17,
    tile_queries: int = 256,
) -> tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]]:
    """Returns the k documents with the greatest inner product with each query, best first.

    Args:
      queries: embeddings [queries, dim] of NumPy or JAX; they are converted to float32.
      docs: embeddings [docs, dim] of NumPy or JAX; they are converted to float32.
      k: the number of documents for each query, from 1 to the number of documents.
      order: a distinct integer for each document; of documents with equal scores the lower integer is first. By default
        it is the document's index. With the rank of the document's id, the result does not depend on the corpus order.
      mesh: the devices over which documents are split (all axes); by default one device. It never changes the result.
      tile_docs, tile_queries: the size of a tile; the scores of up to three tiles are in memory at once. They never
        change the result.

    Returns:
      scores float32 [queries, k], bit-equal for every tiling, and indices int32 [queries, k] into docs.

    Raises:
      ValueError: the shapes do not fit, k is out of range, an embedding is not finite, or an inner product exceeds
        float32.
    """
    _check(queries, docs, k)
    count = docs.shape[0]
    ranks = np.arange(count) if order is None else np.asarray(order)
    if ranks.shape != (count,):
        raise ValueError(f"order must have one entry for each document ({count}), found shape {ranks.shape}")
    corpus = _Corpus(docs, mesh=mesh, tile=tile_docs)
    queries = corpus.replicated(queries)
    scores = np.zeros((queries.shape[0], k), np.float32)
    indices = np.zeros((queries.shape[0], k), np.int32)
    pending, candidates = np.arange(queries.shape[0]), k + max(32, k // 4)
    while pending.size:
        everything = 2 * candidates >= count
        chunk = min(tile_queries, max(1, tile_queries * tile_docs // count)) if everything else tile_queries
        search = functools.partial(
            _search_some,
            corpus,
            queries,
            ranks=ranks,
            k=k,
            chunk=min(chunk, pending.size),
            width=None if everything else candidates,
        )
        uncertain = [pending[:0]]
        chunks = [pending[start : start + chunk] for start in range(0, pending.size, chunk)]
        for rows, (*best, certain) in zip(chunks, _overlapped(search, chunks, workers=corpus.searches)):
            scores[rows], indices[rows] = best
            uncertain.append(rows[~certain])
        pending, candidates = np.concatenate(uncertain), 4 * candidates
    if not np.isfinite(scores).all():
        raise ValueError("inner products of these embeddings exceed float32; scale them to unit vectors")
    return scores, indices


def local_mesh() -> Mesh | None:
    """Returns a mesh of the devices of this process, or None if the process has only one device."""
    devices = jax.local_devices()
    return Mesh(np.asarray(devices), ("docs",)) if len(devices) > 1 else None


def inner_products(queries: Float[Any, "pairs dim"], docs: Float[Any, "pairs dim"]) -> Float32[np.ndarray, "pairs"]:
    """Returns the inner product of each row of `queries` with the same row of `docs`, bit-equal to that of exact_top_k.

    Raises ValueError if the shapes differ.
    """
    if queries.ndim != 2 or queries.shape != docs.shape:
        raise ValueError(f"queries and docs must both be [pairs, dim], found {queries.shape} and {docs.shape}")
    scores = np.zeros(queries.shape[0], np.float32)
    rows = max(1, _PAIR_FLOATS // max(queries.shape[1], 1))
    for start in range(0, scores.size, rows):
        part = slice(start, start + rows)
        products = jnp.multiply(jnp.asarray(queries[part], jnp.float32), jnp.asarray(docs[part], jnp.float32))
        scores[part] = _summed(products)
    return scores


def check_k(k: int, documents: int) -> None:
    """Raises ValueError when k is no whole number from 1 to the number of documents."""
    if not isinstance(k, int | np.integer) or not 1 <= k <= documents:
        raise ValueError(f"k must be a whole number from 1 to the number of documents ({documents}), found {k}")


def _check(queries: Any, docs: Any, k: int) -> None:
    if other := next((type(v).__name__ for v in (queries, docs) if not hasattr(v, "ndim")), None):
        raise ValueError(f"queries and docs must be arrays of JAX or NumPy, found {other}")
    if queries.ndim != 2 or docs.ndim != 2 or queries.shape[1] != docs.shape[1] or not docs.shape[1]:
        raise ValueError(
            f"queries and docs must be [queries, dim] and [docs, dim], found {queries.shape} and {docs.shape}"
        )
    check_k(k, docs.shape[0])
    for name, array in (("queries", queries), ("docs", docs)):
        if not bool(jnp.isfinite(jnp.asarray(array)).all()):
            raise ValueError(f"{name} holds an embedding that is not finite; train or embed again")


def _search_some(
    corpus: "_Corpus",
    queries: jax.Array,
    rows: Int64[np.ndarray, "rows"],
    *,
    ranks: np.ndarray,
    k: int,
    chunk: int,
    width: int | None,
) -> tuple[Float32[np.ndarray, "rows k"], Int32[np.ndarray, "rows k"], Bool[np.ndarray, "rows"]]:
    """Returns scores and indices of the best documents for some queries, and the mask of the queries that are certain.

    A query is certain if no other document can have a better score.

    Args:
      rows: the rows of the queries.
      chunk: the number of queries to search; rows are repeated to fill it, so that a short last chunk is not compiled
        again.
      width: the number of candidates; None: all documents are scored pair by pair.
    """
    chosen = queries[np.resize(rows, chunk)]
    scanned, ids = (None, corpus.all_ids(chunk)) if width is None else map(np.asarray, corpus.scan(chosen, width))
    scores, indices = _best(corpus.pair_scores(chosen, ids), ids, ranks=ranks, k=k)
    certain = np.ones(chunk, bool)
    if scanned is not None:
        # The bound on rounding does not hold for scores that exceed float32.
        certain = np.isfinite(scanned[:, -1]) & (scanned[:, -1] + corpus.rounding(chosen) < scores[:, -1])
    return scores[: rows.size], indices[: rows.size], certain[: rows.size]


def _overlapped(work: Callable[[_Item], _Result], items: Iterable[_Item], *, workers: int) -> Iterator[_Result]:
    """Yields work(item) of each item in order; `workers` items are computed at a time, and one more can be waiting."""
    with ThreadPoolExecutor(workers) as pool:
        started: deque[Future[_Result]] = deque()
        for item in items:
            started.append(pool.submit(work, item))
            if len(started) > workers:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()


class _Corpus:
    """Documents on their devices, with the two ways to score them: by matrix products and pair by pair."""

    def __init__(self, docs: Any, *, mesh: Mesh | None, tile: int):
        self.count = docs.shape[0]
        self.tile = tile
        # The devices form one automatic axis, independent of the axes of the caller's mesh.
        self.mesh = None if mesh is None else Mesh(mesh.devices.reshape(-1), ("docs",))
        docs = jnp.asarray(docs, jnp.float32)
        if self.mesh is None:
            # Documents are committed to their device, like the queries later: a thread does not know the default device
            # of its caller.
            docs = jax.device_put(docs, docs.sharding)
            self._query_sharding = docs.sharding if len(docs.devices()) == 1 else None
        else:
            self._query_sharding = NamedSharding(self.mesh, PartitionSpec())
            docs = jnp.pad(docs, ((0, -self.count % self.mesh.size), (0, 0)))
            docs = jax.device_put(docs, NamedSharding(self.mesh, PartitionSpec("docs")))
        self.docs = docs
        self.largest_norm = np.float64(_largest_norm(docs))
        # The number of searches at a time. Two keep all cores busy, because a selection uses only one core. Programs
        # over several devices exchange their results, and two of them at once would wait for each other.
        self.searches = 2 if len(docs.devices()) == 1 else 1

    def replicated(self, queries: Any) -> jax.Array:
        """Returns the queries as float32 on every device of the documents."""
        return jax.device_put(jnp.asarray(queries, jnp.float32), self._query_sharding)

    def all_ids(self, queries: int) -> Int32[np.ndarray, "queries docs"]:
        """Returns the indices of all documents for each query."""
        return np.broadcast_to(np.arange(self.count, dtype=np.int32), (queries, self.count))

    def scan(self, queries: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
        """Returns scores by matrix products and indices of the best documents, both [queries, width], best first."""
        if self.mesh is None:
            return _scan(queries, self.docs, 0, width=width, tile=self.tile, count=self.count)
        return _scan_sharded(queries, self.docs, mesh=self.mesh, width=width, tile=self.tile, count=self.count)

    def rounding(self, queries: jax.Array) -> Float[np.ndarray, "queries"]:
        """Returns the maximum difference between the two scores of a pair: by a matrix product and pair by pair."""
        norms = np.linalg.norm(np.asarray(queries, np.float64), axis=1)
        # Each score has at most dim roundings of products whose sum is at most |q| |d|, or of products that are too
        # small for float32 and become 0.
        each = np.maximum(_UNIT_ROUNDOFF * norms * self.largest_norm, np.finfo(np.float32).tiny)
        return 2 * (queries.shape[1] + 2) * each

    def pair_scores(
        self, queries: Float32[jax.Array, "queries dim"], indices: Int32[np.ndarray, "queries width"]
    ) -> Float32[np.ndarray, "queries width"]:
        """Returns the inner products of each query with the documents in its row of indices, in a fixed order."""
        scores = np.zeros(indices.shape, np.float32)
        columns = max(1, min(indices.shape[1], _PAIR_FLOATS // queries.shape[1]))
        rows = max(1, min(indices.shape[0], _PAIR_FLOATS // (queries.shape[1] * columns)))
        for top in range(0, indices.shape[0], rows):
            for left in range(0, indices.shape[1], columns):
                chosen = indices[top : top + rows, left : left + columns]
                products = _products_with(queries[top : top + rows], self.docs, chosen)
                scores[top : top + rows, left : left + columns] = _summed(products)
        return scores


@jax.jit
def _largest_norm(docs: jax.Array) -> jax.Array:
    # The squares of very small or very large numbers would exceed the range of float32.
    scale = jnp.maximum(jnp.abs(docs).max(), jnp.finfo(jnp.float32).tiny)
    return scale * jnp.sqrt(jnp.max(jnp.sum(jnp.square(docs / scale), axis=1)))


@functools.partial(jax.jit, static_argnames=("width", "tile", "count"))
def _scan(
    queries: jax.Array, docs: jax.Array, first: Any, *, width: int, tile: int, count: int
) -> tuple[jax.Array, jax.Array]:
    """Returns scores and indices of the best `width` documents of a part of a corpus.

    The rows of docs are the documents first, first + 1, ...; those from `count` on are padding.
    """
    length = docs.shape[0]
    tile = min(tile, length)

    def step(best: tuple[jax.Array, jax.Array], start: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        # The last tile is moved back to fit; the rows that an earlier tile has scored are masked in it.
        moved = jnp.minimum(start, length - tile)
        block = docs if tile == length else jax.lax.dynamic_slice_in_dim(docs, moved, tile)
        scores = jax.lax.dot_general(queries, block, (((1,), (1,)), ((), ())), precision=jax.lax.Precision.HIGHEST)
        local = moved + jnp.arange(tile, dtype=jnp.int32)
        fresh = (local >= start) & (local + first < count)
        scores, columns = _candidates(jnp.where(fresh[None], scores, -jnp.inf), width)
        joined = jnp.concatenate([best[0], scores], axis=1)
        ids = jnp.concatenate([best[1], moved + first + columns], axis=1)
        kept, columns = jax.lax.top_k(joined, width)
        return (kept, _columns(ids, columns)), None

    no_scores = jnp.full((queries.shape[0], width), -jnp.inf)
    start = (no_scores, jnp.zeros(no_scores.shape, jnp.int32))
    return jax.lax.scan(step, start, jnp.arange(0, length, tile, dtype=jnp.int32))[0]


def _candidates(
    scores: Float32[jax.Array, "queries docs"], width: int
) -> tuple[Float32[jax.Array, "queries candidates"], Int32[jax.Array, "queries candidates"]]:
    """Returns some scores of each row and their columns; they include the `width` best scores of the row.

    The best scores of a row are in the `width` groups with the greatest maxima, and these groups are selected from the
    maxima in the same way. A selection therefore reads a few times `width` numbers, not all, and every score is read
    once.
    """
    queries, docs = scores.shape
    if docs <= _SELECTED_AT_ONCE * width:
        return scores, jnp.broadcast_to(jnp.arange(docs, dtype=jnp.int32), scores.shape)
    # The columns of a group are far apart, so that a maximum of slices computes the maxima of all groups at once.
    groups = -(-docs // _GROUP)
    slices = [scores[:, start : start + groups] for start in range(0, docs, groups)]
    padding = groups - slices[-1].shape[1]
    slices[-1] = jnp.pad(slices[-1], ((0, 0), (0, padding)), constant_values=-jnp.inf)
    maxima, numbers = _candidates(functools.reduce(jnp.maximum, slices), width)
    chosen = _columns(numbers, jax.lax.top_k(maxima, width)[1])
    first_columns = groups * jnp.arange(len(slices), dtype=jnp.int32)
    columns = first_columns[None, :, None] + chosen[:, None, :]
    # If a row has few scores, groups and columns beyond the last one can be chosen too; their scores are masked.
    valid = ((chosen < groups)[:, None, :] & (columns < docs)).reshape(queries, -1)
    columns = columns.reshape(queries, -1)
    return jnp.where(valid, _columns(scores, jnp.minimum(columns, docs - 1)), -jnp.inf), columns


def _columns(table: jax.Array, chosen: Int32[jax.Array, "rows chosen"]) -> jax.Array:
    """Returns the chosen columns of each row of `table`; all of them must exist."""
    return jnp.take_along_axis(table, chosen, axis=1, mode="clip")


@functools.partial(jax.jit, static_argnames=("mesh", "width", "tile", "count"))
def _scan_sharded(queries: jax.Array, docs: jax.Array, *, mesh: Mesh, width: int, tile: int, count: int) -> Any:
    shard = docs.shape[0] // mesh.size

    def local(queries: jax.Array, docs: jax.Array) -> tuple[jax.Array, jax.Array]:
        first = jax.lax.axis_index("docs") * shard
        best = _scan(queries, docs, first, width=min(width, shard), tile=tile, count=count)
        scores, ids = (jax.lax.all_gather(part, "docs", axis=1, tiled=True) for part in best)
        scores, columns = jax.lax.top_k(scores, width)
        return scores, _columns(ids, columns)

    by_docs = PartitionSpec("docs")
    return jax.shard_map(
        local, mesh=mesh, in_specs=(PartitionSpec(), by_docs), out_specs=PartitionSpec(), check_vma=False
    )(queries, docs)


@jax.jit
def _products_with(queries: jax.Array, docs: jax.Array, chosen: Any) -> Float32[jax.Array, "queries chosen dim"]:
    return queries[:, None, :] * jnp.take(docs, chosen, axis=0, mode="clip")


def _summed(products: Float32[jax.Array, "*pairs dim"]) -> Float32[np.ndarray, "*pairs"]:
    # A gather over several devices turns -0 into 0; adding 0 does the same in all other cases.
    return np.asarray(_sum_by_halving(products)) + np.float32(0)


@jax.jit
def _sum_by_halving(terms: jax.Array) -> jax.Array:
    while (length := terms.shape[-1]) > 1:
        half = length // 2
        summed = terms[..., :half] + terms[..., half : 2 * half]
        terms = jnp.concatenate([summed, terms[..., 2 * half :]], axis=-1) if length % 2 else summed
    return terms[..., 0]


def _best(
    scores: np.ndarray, indices: np.ndarray, *, ranks: np.ndarray, k: int
) -> tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]]:
    order = np.lexsort((ranks[indices], -scores))[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(indices, order, 1)
