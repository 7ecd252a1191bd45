"""Exact top-k by inner product: the same documents, scores and order for any tiling, device count and corpus order.

Matrix products are not bit-equal across tilings: the order of their sums depends on shapes. So they only nominate.

1. Documents are scored tile by tile; the best k plus slack of each query are kept, the score matrix never is.
2. The nominated pairs are scored again, pair by pair, products in float32 summed by halving: an order that depends on
   the dimension alone. Each operation is dispatched by itself, since inside one fused program a product and a sum may
   become one fused multiply-add in one shape and not in another.
3. Ties go to the document that comes first in `order`.
4. A document that was not nominated can only belong to the top k when rounding hid it. Where the bound on rounding
   does not exclude that (equal documents around rank k, say), the query is searched again with more slack, and at
   last every document of the corpus is scored for it as in 2.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Float32, Int, Int32

_UNIT_ROUNDOFF = 2.0**-24
# Floats in one chunk of gathered pairs: 32 MiB, which stays in reach of the processor's caches.
_PAIR_FLOATS = 1 << 23


def exact_top_k(
    queries: Float[Any, "queries dim"],
    docs: Float[Any, "docs dim"],
    k: int,
    *,
    order: Int[Any, "docs"] | None = None,
    mesh: Mesh | None = None,
    tile_docs: int = 16384,
    tile_queries: int = 1024,
) -> tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]]:
    """The k documents of greatest inner product with each query, best first.

    Args:
      queries: [queries, dim], NumPy or JAX; taken as float32.
      docs: [docs, dim].
      k: 1 to docs.
      order: the place of each document among equals, distinct integers; by default its index. With the rank of its id
        here, the answer does not depend on the order of the corpus.
      mesh: devices to spread the documents over (all axes); by default one device. Never changes the answer.
      tile_docs, tile_queries: at most tile_docs * tile_queries scores are in memory at once. Never change the answer.

    Returns:
      scores float32 [queries, k], bit-equal whatever the tiling, and indices int32 [queries, k] into docs.

    Raises:
      ValueError: shapes that do not fit, k out of range, or an embedding that is not finite.
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
        uncertain = []
        for start in range(0, pending.size, chunk):
            rows = pending[start : start + chunk]
            # A short last chunk keeps the shape of the others, so that nothing is compiled again for it.
            asked = queries[np.resize(rows, chunk) if pending.size > chunk else rows]
            nominated, excluded = corpus.all_of(len(asked)) if everything else corpus.nominate(asked, width)
            best = _best(corpus.pair_scores(asked, nominated), nominated, place=place, k=k)
            scores[rows], indices[rows] = (part[: rows.size] for part in best)
            uncertain.append(rows[~(excluded < best[0][:, -1])[: rows.size]])
        pending, width = np.concatenate(uncertain), 4 * width
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
        scores[some] = np.asarray(_sum_by_halving(products))
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


class _Corpus:
    """Documents on their devices, and the two ways to score them."""

    def __init__(self, docs: Any, *, mesh: Mesh | None, tile: int):
        self.count = docs.shape[0]
        self.tile = tile
        # One automatic axis, whatever the axes of the caller's mesh are and mean.
        self.mesh = None if mesh is None else Mesh(mesh.devices.reshape(-1), ("docs",))
        docs = jnp.asarray(docs, jnp.float32)
        if self.mesh is not None:
            docs = jnp.pad(docs, ((0, -self.count % self.mesh.size), (0, 0)))
            docs = jax.device_put(docs, NamedSharding(self.mesh, PartitionSpec("docs")))
        self.docs = docs
        self.largest_norm = np.asarray(_largest_norm(docs))

    def replicated(self, queries: Any) -> jax.Array:
        queries = jnp.asarray(queries, jnp.float32)
        return queries if self.mesh is None else jax.device_put(queries, NamedSharding(self.mesh, PartitionSpec()))

    def all_of(self, queries: int) -> tuple[np.ndarray, np.ndarray]:
        """What `nominate` answers when nothing is left out."""
        ids = np.arange(self.count, dtype=np.int32)
        return np.broadcast_to(ids, (queries, self.count)), np.full(queries, -np.inf)

    def nominate(self, queries: jax.Array, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The `width` best documents by a matrix product, and a score that no other document's pair score exceeds."""
        if self.mesh is None:
            found, ids = _scan(queries, self.docs, 0, width=width, tile=self.tile, count=self.count)
        else:
            found, ids = _scan_sharded(
                queries, self.docs, mesh=self.mesh, width=width, tile=self.tile, count=self.count
            )
        norms = np.linalg.norm(np.asarray(queries), axis=1)
        # The two scores of a pair each carry at most dim roundings of products that sum to |q| |d| at most.
        rounding = 2 * (queries.shape[1] + 2) * _UNIT_ROUNDOFF * norms * self.largest_norm
        return np.asarray(ids), np.asarray(found)[:, -1] + rounding

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
                gathered = jnp.take(self.docs, chosen, axis=0, mode="clip")
                products = jnp.multiply(queries[top : top + rows, None, :], gathered)
                scores[top : top + rows, left : left + columns] = np.asarray(_sum_by_halving(products))
        return scores


@jax.jit
def _largest_norm(docs: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.max(jnp.sum(jnp.square(docs), axis=1)))


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
        block = jax.lax.dynamic_slice_in_dim(docs, moved, tile)
        scores = jax.lax.dot_general(queries, block, (((1,), (1,)), ((), ())), precision=jax.lax.Precision.HIGHEST)
        local = moved + jnp.arange(tile, dtype=jnp.int32)
        fresh = (local >= start) & (local + first < count)
        scores = jnp.where(fresh[None, :], scores, -jnp.inf)
        joined = jnp.concatenate([best[0], scores], axis=1)
        ids = jnp.concatenate([best[1], jnp.broadcast_to((local + first)[None, :], scores.shape)], axis=1)
        kept, at = jax.lax.top_k(joined, width)
        return (kept, jnp.take_along_axis(ids, at, axis=1)), None

    nothing = jnp.full((queries.shape[0], width), -jnp.inf)
    start = (nothing, jnp.zeros(nothing.shape, jnp.int32))
    return jax.lax.scan(step, start, jnp.arange(0, held, tile, dtype=jnp.int32))[0]


@functools.partial(jax.jit, static_argnames=("mesh", "width", "tile", "count"))
def _scan_sharded(queries: jax.Array, docs: jax.Array, *, mesh: Mesh, width: int, tile: int, count: int) -> Any:
    shard = docs.shape[0] // mesh.size

    def local(queries: jax.Array, docs: jax.Array) -> tuple[jax.Array, jax.Array]:
        first = jax.lax.axis_index("docs") * shard
        best = _scan(queries, docs, first, width=min(width, shard), tile=tile, count=count)
        scores, ids = (jax.lax.all_gather(part, "docs", axis=1, tiled=True) for part in best)
        scores, at = jax.lax.top_k(scores, width)
        return scores, jnp.take_along_axis(ids, at, axis=1)

    spread = PartitionSpec("docs")
    return jax.shard_map(
        local, mesh=mesh, in_specs=(PartitionSpec(), spread), out_specs=PartitionSpec(), check_vma=False
    )(queries, docs)


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
