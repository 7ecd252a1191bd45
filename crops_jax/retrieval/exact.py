"""Exact top-k by inner product: the same documents, scores and order for any tiling, device count and corpus order.

Matrix products are not bit-equal across tilings: the order of their sums depends on shapes. So they only nominate.

1. Documents are scored tile by tile; the best k plus slack of each query are kept, the score matrix never is.
2. The nominated pairs are scored again, pair by pair, products in float32 summed by halving: an order that depends on
   the dimension alone. Products are one program and sums another, since inside one a product and a sum may become one
   fused multiply-add in one shape and not in another.
3. Ties go to the document that comes first in `order`.
4. A document that was not nominated can only belong to the top k when rounding hid it. Where the bound on rounding
   does not exclude that (equal documents around rank k, say), the query is searched again with more slack, and at
   last every document of the corpus is scored for it as in 2.
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
# Floats in one chunk of gathered pairs: 32 MiB, which stays in reach of the processor's caches.
_PAIR_FLOATS = 1 << 23
# Columns in a group whose maximum stands for it, and how many times as many numbers as are wanted one selection takes.
_GROUP = 8
_SELECTED_AT_ONCE = 16
_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


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
    """The k documents of greatest inner product with each query, best first.

    Args:
      queries: [queries, dim], NumPy or JAX; taken as float32.
      docs: [docs, dim].
      k: 1 to docs.
      order: the place of each document among equals, distinct integers; by default its index. With the rank of its id
        here, the answer does not depend on the order of the corpus.
      mesh: devices to spread the documents over (all axes); by default one device. Never changes the answer.
      tile_docs, tile_queries: of one tile; the scores of up to three are in memory at once. Never change the answer.

    Returns:
      scores float32 [queries, k], bit-equal whatever the tiling, and indices int32 [queries, k] into docs.

    Raises:
      ValueError: shapes that do not fit, k out of range, an embedding that is not finite, or inner products that
        float32 cannot hold.
    """
    _check(queries, docs, k)
    count = docs.shape[0]
    place = np.arange(count) if order is None else np.asarray(order)
    if place.shape != (count,):
        raise ValueError(f"order must have one entry a document ({count}), found shape {place.shape}")
    corpus = _Corpus(docs, mesh=mesh, tile=tile_docs)
    queries = corpus.replicated(queries)
    scores = np.zeros((queries.shape[0], k), np.float32)
    indices = np.zeros((queries.shape[0], k), np.int32)
    pending, width = np.arange(queries.shape[0]), k + max(32, k // 4)
    while pending.size:
        everything = 2 * width >= count
        chunk = min(tile_queries, max(1, tile_queries * tile_docs // count)) if everything else tile_queries
        search = functools.partial(
            _search_some,
            corpus,
            queries,
            place=place,
            k=k,
            chunk=min(chunk, pending.size),
            width=None if everything else width,
        )
        uncertain = [pending[:0]]
        chunks = [pending[start : start + chunk] for start in range(0, pending.size, chunk)]
        for rows, (*best, sure) in zip(chunks, _overlapped(search, chunks, workers=corpus.searches)):
            scores[rows], indices[rows] = best
            uncertain.append(rows[~sure])
        pending, width = np.concatenate(uncertain), 4 * width
    if not np.isfinite(scores).all():
        raise ValueError("inner products of these embeddings are beyond float32; scale them to unit vectors")
    return scores, indices


def local_mesh() -> Mesh | None:
    """The devices of this process in one row, for `mesh`; None where there is one only."""
    devices = jax.local_devices()
    return Mesh(np.asarray(devices), ("docs",)) if len(devices) > 1 else None


def inner_products(queries: Float[Any, "pairs dim"], docs: Float[Any, "pairs dim"]) -> Float32[np.ndarray, "pairs"]:
    """The inner product of each row of `queries` with the same row of `docs`, bit-equal to exact_top_k's scores."""
    if queries.ndim != 2 or queries.shape != docs.shape:
        raise ValueError(f"queries and docs must both be [pairs, dim], found {queries.shape} and {docs.shape}")
    scores = np.zeros(queries.shape[0], np.float32)
    rows = max(1, _PAIR_FLOATS // max(queries.shape[1], 1))
    for start in range(0, scores.size, rows):
        some = slice(start, start + rows)
        products = jnp.multiply(jnp.asarray(queries[some], jnp.float32), jnp.asarray(docs[some], jnp.float32))
        scores[some] = _summed(products)
    return scores


def _check(queries: Any, docs: Any, k: int) -> None:
    if queries.ndim != 2 or docs.ndim != 2 or queries.shape[1] != docs.shape[1] or not docs.shape[1]:
        raise ValueError(
            f"queries and docs must be [queries, dim] and [docs, dim], found {queries.shape} and {docs.shape}"
        )
    if not 1 <= k <= docs.shape[0]:
        raise ValueError(f"k must lie in 1 to the number of documents ({docs.shape[0]}), found {k}")
    for name, array in (("queries", queries), ("docs", docs)):
        if not bool(jnp.isfinite(jnp.asarray(array)).all()):
            raise ValueError(f"{name} holds an embedding that is not finite; train or embed again")


def _search_some(
    corpus: "_Corpus",
    queries: jax.Array,
    rows: Int64[np.ndarray, "some"],
    *,
    place: np.ndarray,
    k: int,
    chunk: int,
    width: int | None,
) -> tuple[Float32[np.ndarray, "some k"], Int32[np.ndarray, "some k"], Bool[np.ndarray, "some"]]:
    """Scores and indices of the best for some queries, and for which of them nothing better can have been missed.

    Args:
      rows: numbers of the queries.
      chunk: as many are searched for, some of them again, so that a short last chunk compiles nothing anew.
      width: documents to nominate; None: all are scored pair by pair.
    """
    asked = queries[np.resize(rows, chunk)]
    nominated, ids = (None, corpus.all_ids(chunk)) if width is None else map(np.asarray, corpus.scan(asked, width))
    scores, indices = _best(corpus.pair_scores(asked, ids), ids, place=place, k=k)
    sure = np.ones(chunk, bool)
    if nominated is not None:
        # Of a score beyond float32 rounding says nothing.
        sure = np.isfinite(nominated[:, -1]) & (nominated[:, -1] + corpus.rounding(asked) < scores[:, -1])
    return scores[: rows.size], indices[: rows.size], sure[: rows.size]


def _overlapped(work: Callable[[_Item], _Found], items: Iterable[_Item], *, workers: int) -> Iterator[_Found]:
    """work(item) of each in turn, with so many at work at a time and at most one more begun."""
    with ThreadPoolExecutor(workers) as pool:
        begun: deque[Future[_Found]] = deque()
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > workers:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


class _Corpus:
    """Documents on their devices, and the two ways to score them."""

    def __init__(self, docs: Any, *, mesh: Mesh | None, tile: int):
        self.count = docs.shape[0]
        self.tile = tile
        # One automatic axis, whatever the axes of the caller's mesh are and mean.
        self.mesh = None if mesh is None else Mesh(mesh.devices.reshape(-1), ("docs",))
        docs = jnp.asarray(docs, jnp.float32)
        if self.mesh is None:
            # Bound to where they are, as queries will be: a thread does not know its caller's default device.
            docs = jax.device_put(docs, docs.sharding)
            self._of_queries = docs.sharding if len(docs.devices()) == 1 else None
        else:
            self._of_queries = NamedSharding(self.mesh, PartitionSpec())
            docs = jnp.pad(docs, ((0, -self.count % self.mesh.size), (0, 0)))
            docs = jax.device_put(docs, NamedSharding(self.mesh, PartitionSpec("docs")))
        self.docs = docs
        self.largest_norm = np.float64(_largest_norm(docs))
        # At a time: two keep all cores busy, since a selection takes one. Programs over several devices exchange what
        # they found, and two of them at once would wait for each other.
        self.searches = 2 if len(docs.devices()) == 1 else 1

    def replicated(self, queries: Any) -> jax.Array:
        return jax.device_put(jnp.asarray(queries, jnp.float32), self._of_queries)

    def all_ids(self, queries: int) -> Int32[np.ndarray, "queries docs"]:
        return np.broadcast_to(np.arange(self.count, dtype=np.int32), (queries, self.count))

    def scan(self, queries: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
        """Scores [queries, width], best first, and ids of the best documents by a matrix product."""
        if self.mesh is None:
            return _scan(queries, self.docs, 0, width=width, tile=self.tile, count=self.count)
        return _scan_sharded(queries, self.docs, mesh=self.mesh, width=width, tile=self.tile, count=self.count)

    def rounding(self, queries: jax.Array) -> Float[np.ndarray, "queries"]:
        """By how much the two scores of a pair, by matrix product and by itself, differ at most."""
        norms = np.linalg.norm(np.asarray(queries, np.float64), axis=1)
        # Each carries at most dim roundings of products that sum to |q| |d| at most, or of products that are too small
        # for float32 and become 0.
        each = np.maximum(_UNIT_ROUNDOFF * norms * self.largest_norm, np.finfo(np.float32).tiny)
        return 2 * (queries.shape[1] + 2) * each

    def pair_scores(
        self, queries: Float32[jax.Array, "queries dim"], indices: Int32[np.ndarray, "queries width"]
    ) -> Float32[np.ndarray, "queries width"]:
        """Inner products of each query with its own documents, in the fixed order."""
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
    # Squares of very small or large numbers would leave float32.
    scale = jnp.maximum(jnp.abs(docs).max(), jnp.finfo(jnp.float32).tiny)
    return scale * jnp.sqrt(jnp.max(jnp.sum(jnp.square(docs / scale), axis=1)))


@functools.partial(jax.jit, static_argnames=("width", "tile", "count"))
def _scan(
    queries: jax.Array, docs: jax.Array, first: Any, *, width: int, tile: int, count: int
) -> tuple[jax.Array, jax.Array]:
    """Top `width` of docs, which are documents first, first + 1, ... of a corpus of `count`; what lies past is not."""
    held = docs.shape[0]
    tile = min(tile, held)

    def step(best: tuple[jax.Array, jax.Array], start: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        # The last tile is moved back to fit; what an earlier one has scored is masked in it.
        moved = jnp.minimum(start, held - tile)
        block = docs if tile == held else jax.lax.dynamic_slice_in_dim(docs, moved, tile)
        scores = jax.lax.dot_general(queries, block, (((1,), (1,)), ((), ())), precision=jax.lax.Precision.HIGHEST)
        local = moved + jnp.arange(tile, dtype=jnp.int32)
        fresh = (local >= start) & (local + first < count)
        scores, columns = _candidates(jnp.where(fresh[None], scores, -jnp.inf), width)
        joined = jnp.concatenate([best[0], scores], axis=1)
        ids = jnp.concatenate([best[1], moved + first + columns], axis=1)
        kept, at = jax.lax.top_k(joined, width)
        return (kept, _columns(ids, at)), None

    nothing = jnp.full((queries.shape[0], width), -jnp.inf)
    start = (nothing, jnp.zeros(nothing.shape, jnp.int32))
    return jax.lax.scan(step, start, jnp.arange(0, held, tile, dtype=jnp.int32))[0]


def _candidates(
    scores: Float32[jax.Array, "queries docs"], width: int
) -> tuple[Float32[jax.Array, "queries found"], Int32[jax.Array, "queries found"]]:
    """Some scores of each row and their columns; among them are `width` that no other one of the row exceeds.

    The best ones of a row lie in the `width` groups with the greatest maxima, which are found among the maxima in the
    same way. So selections look at a few times `width` numbers in the place of all, and every score is read once.
    """
    queries, docs = scores.shape
    if docs <= _SELECTED_AT_ONCE * width:
        return scores, jnp.broadcast_to(jnp.arange(docs, dtype=jnp.int32), scores.shape)
    # Groups of columns that are far apart: then maxima are taken between slices, whole vectors at a time.
    groups = -(-docs // _GROUP)
    slices = [scores[:, start : start + groups] for start in range(0, docs, groups)]
    lacking = groups - slices[-1].shape[1]
    slices[-1] = jnp.pad(slices[-1], ((0, 0), (0, lacking)), constant_values=-jnp.inf)
    maxima, numbers = _candidates(functools.reduce(jnp.maximum, slices), width)
    chosen = _columns(numbers, jax.lax.top_k(maxima, width)[1])
    first_columns = groups * jnp.arange(len(slices), dtype=jnp.int32)
    columns = first_columns[None, :, None] + chosen[:, None, :]
    # Where scores are few, what lies past the last group, or in it past the last column, is chosen too.
    there = ((chosen < groups)[:, None, :] & (columns < docs)).reshape(queries, -1)
    columns = columns.reshape(queries, -1)
    return jnp.where(there, _columns(scores, jnp.minimum(columns, docs - 1)), -jnp.inf), columns


def _columns(table: jax.Array, chosen: Int32[jax.Array, "rows chosen"]) -> jax.Array:
    """Of each row of `table` the chosen columns, which must be there."""
    return jnp.take_along_axis(table, chosen, axis=1, mode="clip")


@functools.partial(jax.jit, static_argnames=("mesh", "width", "tile", "count"))
def _scan_sharded(queries: jax.Array, docs: jax.Array, *, mesh: Mesh, width: int, tile: int, count: int) -> Any:
    shard = docs.shape[0] // mesh.size

    def local(queries: jax.Array, docs: jax.Array) -> tuple[jax.Array, jax.Array]:
        first = jax.lax.axis_index("docs") * shard
        best = _scan(queries, docs, first, width=min(width, shard), tile=tile, count=count)
        scores, ids = (jax.lax.all_gather(part, "docs", axis=1, tiled=True) for part in best)
        scores, at = jax.lax.top_k(scores, width)
        return scores, _columns(ids, at)

    spread = PartitionSpec("docs")
    return jax.shard_map(
        local, mesh=mesh, in_specs=(PartitionSpec(), spread), out_specs=PartitionSpec(), check_vma=False
    )(queries, docs)


@jax.jit
def _products_with(queries: jax.Array, docs: jax.Array, chosen: Any) -> Float32[jax.Array, "queries chosen dim"]:
    return queries[:, None, :] * jnp.take(docs, chosen, axis=0, mode="clip")


def _summed(products: Float32[jax.Array, "*pairs dim"]) -> Float32[np.ndarray, "*pairs"]:
    # A gather over several devices gives 0 for -0, and adding 0 does so everywhere.
    return np.asarray(_sum_by_halving(products)) + np.float32(0)


@jax.jit
def _sum_by_halving(terms: jax.Array) -> jax.Array:
    while (length := terms.shape[-1]) > 1:
        half = length // 2
        summed = terms[..., :half] + terms[..., half : 2 * half]
        terms = jnp.concatenate([summed, terms[..., 2 * half :]], axis=-1) if length % 2 else summed
    return terms[..., 0]


def _best(
    scores: np.ndarray, indices: np.ndarray, *, place: np.ndarray, k: int
) -> tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]]:
    by_score_then_place = np.lexsort((place[indices], -scores))[:, :k]
    return np.take_along_axis(scores, by_score_then_place, 1), np.take_along_axis(indices, by_score_then_place, 1)
