"""The few named pairs of a batch. They are processed inside the tiles of the score matrix, or gathered separately.

The pairs are sorted by tile, so that each tile processes only its own pairs. The work over all tiles is then
proportional to the number of pairs; otherwise every tile would process all k entries of its rows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32


class Tiling(NamedTuple):
    """The division of a [queries, blocks * docs] matrix of scores into blocks of columns, and of each block into tiles.

    All tiles have the same size. The last tile of a row or column of tiles is therefore moved back, and the scores that
    it repeats are masked. chunk: the number of named pairs that one iteration of a tile's loop processes.
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
    """The named pairs, sorted by their tiles: by block, then by tile of documents, then by tile of queries.

    row: the query of each pair.
    column: the document of each pair, inside its block.
    position: the index of each pair in the flattened array [queries, k].
    first: the index of the first pair of each tile, and after the last tile the number of pairs.
    """

    row: Int32[Array, "pairs"]
    column: Int32[Array, "pairs"]
    position: Int32[Array, "pairs"]
    first: Int32[Array, "tiles"]


def sorted_pairs(doc_index: Int32[Array, "queries k"], tiling: Tiling) -> NamedPairs:
    """Returns the named pairs sorted by tile. `doc_index` counts the documents of all blocks; -1 is no pair."""
    tiles = tiling.blocks * tiling.doc_tiles * tiling.query_tiles
    row = jnp.broadcast_to(jnp.arange(doc_index.shape[0], dtype=jnp.int32)[:, None], doc_index.shape).ravel()
    block, column = jnp.divmod(doc_index.ravel(), tiling.docs)
    tile = (block * tiling.doc_tiles + column // tiling.doc_tile) * tiling.query_tiles + row // tiling.query_tile
    tile = jnp.where(doc_index.ravel() >= 0, tile, tiles)
    position = jnp.argsort(tile, stable=True).astype(jnp.int32)
    first = jnp.searchsorted(tile[position], jnp.arange(tiles + 1))
    # The arrays are padded at the end, so that a chunk that begins at the last pair can be read as a whole.
    padding = jnp.zeros(tiling.chunk, jnp.int32)
    row, column, position = (jnp.concatenate([part, padding]) for part in (row[position], column[position], position))
    return NamedPairs(row, column, position, first)


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
    """Runs body(carry, row, column, position) for the pairs of a tile, a chunk of `size` (Tiling.chunk) at a time.

    Rows and columns are counted inside the tile. In the unused entries of a chunk, all three indices are far beyond the
    end of any array, so that scatters with mode="drop" skip them.
    """
    end = pairs.first[tile + 1]
    beyond = jnp.iinfo(jnp.int32).max

    def chunk(state: tuple[Array, Any]) -> tuple[Array, Any]:
        start, carry = state
        row, column, position = (jax.lax.dynamic_slice_in_dim(part, start, size) for part in pairs[:3])
        used = jnp.arange(size) + start < end
        return start + size, body(
            carry,
            jnp.where(used, row - row_start, beyond),
            jnp.where(used, column - column_start, beyond),
            jnp.where(used, position, beyond),
        )

    return jax.lax.while_loop(lambda state: state[0] < end, chunk, (pairs.first[tile], carry))[1]


def inside_block(doc_index: Int32[Array, "queries k"], block: Array | int, docs: int) -> Int32[Array, "queries k"]:
    """Returns the columns of the pairs inside a block of `docs` documents; -1 for pairs of other blocks."""
    in_block = (doc_index >= 0) & (doc_index // docs == block)
    return jnp.where(in_block, doc_index % docs, -1)


def add_named_scores(
    scores: Float[Array, "queries k"],
    queries: Float[Array, "queries dim"],
    docs: Float[Array, "docs dim"],
    index: Int32[Array, "queries k"],
) -> Float[Array, "queries k"]:
    """Returns `scores` with the entries of the pairs in a block of documents replaced by their scores.

    The documents are gathered for one column of pairs at a time. `index` is the result of inside_block.
    """
    wide = queries.astype(jnp.float32)

    def add_column(number: Array, scores: Array) -> Array:
        column = _column(index, number)
        products = (wide * docs[jnp.maximum(column, 0)].astype(jnp.float32)).sum(axis=1)
        new = jnp.where(column >= 0, products, _column(scores, number))
        return jax.lax.dynamic_update_index_in_dim(scores, new, number, axis=1)

    return jax.lax.fori_loop(0, index.shape[1], add_column, scores)


def add_named_gradients(
    d_queries: Float[Array, "queries dim"],
    d_docs: Float[Array, "docs dim"],
    queries: Float[Array, "queries dim"],
    docs: Float[Array, "docs dim"],
    index: Int32[Array, "queries k"],
    pull: Float[Array, "queries k"],
) -> tuple[Float[Array, "queries dim"], Float[Array, "docs dim"]]:
    """Returns the float32 gradients with the contributions of the pairs in a block of documents added.

    `pull` is the derivative of the loss in the scores of the pairs. `index` is the result of inside_block.
    """
    wide = queries.astype(jnp.float32)

    def add_column(number: Array, gradients: tuple[Array, Array]) -> tuple[Array, Array]:
        d_queries, d_docs = gradients
        column = _column(index, number)
        strength = jnp.where(column >= 0, _column(pull, number), 0.0)[:, None]
        d_queries += strength * docs[jnp.maximum(column, 0)].astype(jnp.float32)
        target = jnp.where(column >= 0, column, docs.shape[0])
        return d_queries, d_docs.at[target].add(strength * wide, mode="drop")

    return jax.lax.fori_loop(0, index.shape[1], add_column, (d_queries, d_docs))


def _column(array: Array, number: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(array, number, axis=1, keepdims=False)
