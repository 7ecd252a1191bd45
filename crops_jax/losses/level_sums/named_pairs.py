"""The few named pairs of a batch: inside the tiles of the score matrix, or gathered on their own.

Sorted by tile, each tile meets its own pairs only: over all tiles, work in proportion to their number, instead of
every row's k entries in every tile.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32


class Tiling(NamedTuple):
    """The division of a [queries, blocks * docs] matrix of scores: blocks of columns, with equal tiles in each block.

    The last tile of a row or column of tiles is moved back so that it is as large as the others; what it repeats is
    masked. chunk: named pairs that one turn of a tile's loop handles.
    """

    queries: int
    docs: int
    blocks: int
    query_tile: int
    doc_tile: int
    chunk: int

    @property
    def query_tiles(self) -> int:
        return -(-self.queries // self.query_tile)

    @property
    def doc_tiles(self) -> int:
        return -(-self.docs // self.doc_tile)


class NamedPairs(NamedTuple):
    """Pairs in the order of their tiles: (block, tile of documents, tile of queries).

    row: query of each pair. column: document, inside its block. place: index in the flattened [queries, k].
    first: where each tile's pairs begin, and where the last one's end.
    """

    row: Int32[Array, "pairs"]
    column: Int32[Array, "pairs"]
    place: Int32[Array, "pairs"]
    first: Int32[Array, "tiles"]


def sorted_pairs(doc_index: Int32[Array, "queries k"], tiling: Tiling) -> NamedPairs:
    """Divides indices into all blocks; -1 is no pair."""
    tiles = tiling.blocks * tiling.doc_tiles * tiling.query_tiles
    row = jnp.broadcast_to(jnp.arange(doc_index.shape[0], dtype=jnp.int32)[:, None], doc_index.shape).ravel()
    block, column = jnp.divmod(doc_index.ravel(), tiling.docs)
    tile = (block * tiling.doc_tiles + column // tiling.doc_tile) * tiling.query_tiles + row // tiling.query_tile
    tile = jnp.where(doc_index.ravel() >= 0, tile, tiles)
    place = jnp.argsort(tile, stable=True).astype(jnp.int32)
    first = jnp.searchsorted(tile[place], jnp.arange(tiles + 1))
    # Padding at the end: a chunk that begins at the last pair may be read whole.
    padding = jnp.zeros(tiling.chunk, jnp.int32)
    row, column, place = (jnp.concatenate([part, padding]) for part in (row[place], column[place], place))
    return NamedPairs(row, column, place, first)


def for_pairs_of_tile(
    pairs: NamedPairs,
    tile: Array,
    body: Callable[[Any, Array, Array, Array], Any],
    carry: Any,
    *,
    size: int,
    row_start: Array,
    column_start: Array,
) -> Any:
    """Runs body(carry, row, column, place) for the pairs of a tile, a chunk of `size` (Tiling.chunk) at a time.

    Rows and columns are those inside the tile; in a chunk's unused places all three lie far beyond any array, so that
    scatters with mode="drop" leave them out.
    """
    end = pairs.first[tile + 1]
    beyond = jnp.iinfo(jnp.int32).max

    def chunk(state: tuple[Array, Any]) -> tuple[Array, Any]:
        at, carry = state
        row, column, place = (jax.lax.dynamic_slice_in_dim(part, at, size) for part in pairs[:3])
        used = jnp.arange(size) + at < end
        return at + size, body(
            carry,
            jnp.where(used, row - row_start, beyond),
            jnp.where(used, column - column_start, beyond),
            jnp.where(used, place, beyond),
        )

    return jax.lax.while_loop(lambda state: state[0] < end, chunk, (pairs.first[tile], carry))[1]


def inside_block(doc_index: Int32[Array, "queries k"], block: Array | int, docs: int) -> Int32[Array, "queries k"]:
    """Columns inside a block of `docs` documents; -1 where a pair lies in another one."""
    here = (doc_index >= 0) & (doc_index // docs == block)
    return jnp.where(here, doc_index % docs, -1)


def add_named_scores(
    scores: Float[Array, "queries k"],
    queries: Float[Array, "queries dim"],
    docs: Float[Array, "docs dim"],
    index: Int32[Array, "queries k"],
) -> Float[Array, "queries k"]:
    """`scores` with those of the pairs that a block of documents holds, gathered one column of pairs at a time."""
    wide = queries.astype(jnp.float32)

    def of_column(number: Array, scores: Array) -> Array:
        column = _column(index, number)
        found = (wide * docs[jnp.maximum(column, 0)].astype(jnp.float32)).sum(axis=1)
        new = jnp.where(column >= 0, found, _column(scores, number))
        return jax.lax.dynamic_update_index_in_dim(scores, new, number, axis=1)

    return jax.lax.fori_loop(0, index.shape[1], of_column, scores)


def add_named_gradients(
    d_queries: Float[Array, "queries dim"],
    d_docs: Float[Array, "docs dim"],
    queries: Float[Array, "queries dim"],
    docs: Float[Array, "docs dim"],
    index: Int32[Array, "queries k"],
    pull: Float[Array, "queries k"],
) -> tuple[Float[Array, "queries dim"], Float[Array, "docs dim"]]:
    """float32 gradients with the part of the pairs that a block holds; pull: derivative in their scores."""
    wide = queries.astype(jnp.float32)

    def of_column(number: Array, gradients: tuple[Array, Array]) -> tuple[Array, Array]:
        d_queries, d_docs = gradients
        column = _column(index, number)
        strength = jnp.where(column >= 0, _column(pull, number), 0.0)[:, None]
        d_queries += strength * docs[jnp.maximum(column, 0)].astype(jnp.float32)
        target = jnp.where(column >= 0, column, docs.shape[0])
        return d_queries, d_docs.at[target].add(strength * wide, mode="drop")

    return jax.lax.fori_loop(0, index.shape[1], of_column, (d_queries, d_docs))


def _column(array: Array, number: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(array, number, axis=1, keepdims=False)
