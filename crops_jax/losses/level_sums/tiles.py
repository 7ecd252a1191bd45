"""The sums and both gradients of one device's queries with one block of documents, computed tile by tile.

The forward pass stores, for each query, the greatest score of level 0 so far and sums relative to it (an online
logsumexp). The backward pass computes every tile again, forms the derivative E of the loss in its scores and contracts
it immediately: dQ += E K, dK += E^T Q, with the queries Q and the documents K. Named pairs are removed from a tile, not
subtracted from a sum, because a difference of sums has no correct digits if one score dominates.

The sums are of differences of scores that are not divided by the temperature. The exponents are then small numbers, and
the derivative in the temperature needs the mean of these differences.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from crops_jax.losses.level_sums.named_pairs import NamedPairs, Tiling, for_pairs_of_tile
from crops_jax.losses.level_sums.sums import LOWEST, product


class RunningSums(NamedTuple):
    """The state of the forward pass after some tiles.

    greatest: the greatest score of level 0 so far; LOWEST / 2 before the first tile.
    total: the sum of e^((s - greatest) / t + offset) over level 0.
    moment: the sum of the same terms multiplied by (s - greatest).
    named: the scores of the named pairs.
    ignored: the number of columns of level 0 that ignore_margin ignores.
    """

    greatest: Float[Array, "queries"]
    total: Float[Array, "queries temperatures"]
    moment: Float[Array, "queries temperatures"]
    named: Float[Array, "pairs"]
    ignored: Int32[Array, "queries"]


class Pulls(NamedTuple):
    """The inputs of the backward pass in addition to those of the forward pass.

    greatest, log_total: the results of the forward pass, except that log_total is -LOWEST if the row has no level 0.
    level_0: the derivative of the loss in the log_total of each temperature, divided by that temperature and by peak.
    named: the derivative of the loss in the scores of the named pairs, divided by peak.
    peak: the greatest absolute value of all these derivatives, so that narrow types can represent the quotients.
    """

    greatest: Float[Array, "queries"]
    log_total: Float[Array, "queries temperatures"]
    level_0: Float[Array, "queries temperatures"]
    named: Float[Array, "pairs"]
    peak: Float[Array, ""]


class Gradients(NamedTuple):
    """The gradients of the loss in the embeddings of queries and documents, as float32."""

    queries: Float[Array, "queries dim"]
    docs: Float[Array, "docs dim"]


def no_sums(doc_index: Int32[Array, "queries k"], temperatures: Float[Array, "temperatures"]) -> RunningSums:
    """Returns the state before the first tile."""
    queries, zeros = doc_index.shape[0], jnp.zeros((doc_index.shape[0], temperatures.shape[0]), jnp.float32)
    return RunningSums(
        greatest=jnp.full(queries, LOWEST / 2, jnp.float32),
        total=zeros,
        moment=zeros,
        named=jnp.zeros(doc_index.size, jnp.float32),
        ignored=jnp.zeros(queries, jnp.int32),
    )


def add_block(
    sums: RunningSums,
    queries: Float[Array, "queries dim"],
    docs: Float[Array, "docs dim"],
    *,
    block: Array | int,
    temperatures: Float[Array, "temperatures"],
    offset: Float[Array, "all_docs"],
    threshold: Float[Array, "queries"] | None,
    pairs: NamedPairs,
    tiling: Tiling,
) -> RunningSums:
    """Returns the sums with one more block of documents added; `block` is its index."""

    def add_tile(number: Array, sums: RunningSums) -> RunningSums:
        tile = _Tile.cut_out(number, queries, docs, offset, threshold, block=block, tiling=tiling)
        scores = product(tile.queries, tile.docs.T)
        near = None if tile.threshold is None else scores >= tile.threshold[:, None]

        def take_named(carry, row, column, position):
            scores, named = carry
            values = scores.at[row, column].get(mode="fill", fill_value=0.0)
            return scores.at[row, column].set(LOWEST, mode="drop"), named.at[position].set(values, mode="drop")

        scores, named = for_pairs_of_tile(
            pairs,
            tile.number,
            take_named,
            (scores, sums.named),
            size=tiling.chunk,
            row_start=tile.row_start,
            column_start=tile.column_start,
        )
        level_0 = (tile.offset > LOWEST / 2)[None, :] & tile.fresh_rows[:, None] & (scores > LOWEST / 2)
        before = jax.tree.map(tile.rows_of, (sums.greatest, sums.total, sums.moment, sums.ignored))
        greatest, total, moment, ignored = before
        if near is not None:
            ignored += (level_0 & near).sum(axis=1, dtype=jnp.int32)
            level_0 &= ~near
        new = jnp.maximum(greatest, jnp.where(level_0, scores, LOWEST).max(axis=1))
        above = jnp.where(level_0, scores - new[:, None], LOWEST)
        parts = [jnp.exp(above / t + tile.offset[None, :]) for t in temperatures]
        total, moment = relative_to(new, greatest, total, moment, temperatures)
        moment += jnp.stack([(part * above).sum(axis=1) for part in parts], axis=1)
        total += jnp.stack([part.sum(axis=1) for part in parts], axis=1)
        after = jax.tree.map(tile.with_rows, tuple(sums[:3]) + (sums.ignored,), (new, total, moment, ignored))
        return RunningSums(after[0], after[1], after[2], named, after[3])

    return jax.lax.fori_loop(0, tiling.doc_tiles * tiling.query_tiles, add_tile, sums)


def level_0_derivative(
    queries: Float[Array, "queries dim"],
    docs: Float[Array, "docs dim"],
    *,
    temperatures: Float[Array, "temperatures"],
    offset: Float[Array, "docs"],
    threshold: Float[Array, "queries"] | None,
    greatest: Float[Array, "queries"],
    log_total: Float[Array, "queries temperatures"],
    pull: Float[Array, "queries temperatures"],
) -> Float[Array, "queries docs"]:
    """Returns the derivative E of a tile, the derivative of the loss in the scores of level 0.

    It has the type of the embeddings. The entries of named pairs have arbitrary values. Rows whose log_total is -LOWEST
    and columns whose offset is LOWEST are 0. `greatest`, `log_total` and `pull` are rows of the fields of Pulls.
    """
    scores = product(queries, docs.T)
    above = scores - greatest[:, None]
    e: Array = sum(
        jnp.exp(above / t + (offset[None, :] - log_total[:, which, None])) * pull[:, which, None]
        for which, t in enumerate(temperatures)
    )  # type: ignore[assignment]
    if threshold is not None:
        e = jnp.where(scores < threshold[:, None], e, 0.0)
    return e.astype(queries.dtype)


def add_gradients(
    d_queries: Float[Array, "queries dim"],
    d_docs: Float[Array, "docs dim"],
    queries: Float[Array, "queries dim"],
    docs: Float[Array, "docs dim"],
    pulls: Pulls,
    *,
    block: Array | int,
    temperatures: Float[Array, "temperatures"],
    offset: Float[Array, "all_docs"],
    threshold: Float[Array, "queries"] | None,
    pairs: NamedPairs,
    tiling: Tiling,
    derivative: Callable[..., Array] = level_0_derivative,
) -> Gradients:
    """Returns both gradients with the contribution of one block of documents added, as float32 without further factors.

    `derivative` is the function that computes E of a tile, with the arguments and result of level_0_derivative.
    """

    def add_tile(number: Array, gradients: Gradients) -> Gradients:
        tile = _Tile.cut_out(number, queries, docs, offset, threshold, block=block, tiling=tiling)
        greatest, log_total, pull = map(tile.rows_of, (pulls.greatest, pulls.log_total, pulls.level_0))
        e = derivative(
            tile.queries,
            tile.docs,
            temperatures=temperatures,
            offset=tile.offset,
            threshold=tile.threshold,
            greatest=greatest,
            log_total=jnp.where(tile.fresh_rows[:, None], log_total, -LOWEST),
            pull=pull,
        )

        def put_named(e, row, column, position):
            values = pulls.named.at[position].get(mode="fill", fill_value=0.0).astype(e.dtype)
            return e.at[row, column].set(values, mode="drop")

        e = for_pairs_of_tile(
            pairs,
            tile.number,
            put_named,
            e,
            size=tiling.chunk,
            row_start=tile.row_start,
            column_start=tile.column_start,
        )
        d_q = tile.rows_of(gradients.queries) + product(e, tile.docs) * pulls.peak
        d_d = tile.columns_of(gradients.docs) + product(e.T, tile.queries) * pulls.peak
        return Gradients(tile.with_rows(gradients.queries, d_q), tile.with_columns(gradients.docs, d_d))

    return jax.lax.fori_loop(0, tiling.doc_tiles * tiling.query_tiles, add_tile, Gradients(d_queries, d_docs))


def relative_to(
    new: Float[Array, "queries"],
    greatest: Float[Array, "queries"],
    total: Float[Array, "queries temperatures"],
    moment: Float[Array, "queries temperatures"],
    temperatures: Float[Array, "temperatures"],
) -> tuple[Float[Array, "queries temperatures"], Float[Array, "queries temperatures"]]:
    """Returns total and moment of RunningSums, converted to another greatest score, `new`."""
    rise = (greatest - new)[:, None]
    decay = jnp.exp(rise / temperatures[None, :])
    return decay * total, decay * (moment + total * rise)


def merged(
    sums: RunningSums,
    parts: tuple[
        Float[Array, "parts queries"],
        Float[Array, "parts queries temperatures"],
        Float[Array, "parts queries temperatures"],
    ],
    temperatures: Float[Array, "temperatures"],
) -> RunningSums:
    """Returns `sums` with the results of the programs of a kernel added.

    `parts` is greatest, total and moment of all programs, each of which processed a part of the documents.
    """
    new = jnp.maximum(sums.greatest, parts[0].max(axis=0))
    total, moment = relative_to(new, sums.greatest, sums.total, sums.moment, temperatures)
    totals, moments = jax.vmap(relative_to, in_axes=(None, 0, 0, 0, None))(new, *parts, temperatures)
    return sums._replace(greatest=new, total=total + totals.sum(axis=0), moment=moment + moments.sum(axis=0))


class _Tile(NamedTuple):
    """The inputs of one tile of scores.

    offset: the offset of each column; also LOWEST for columns that an earlier tile has processed.
    fresh_rows: the mask of the rows that no earlier tile has processed.
    """

    number: Array
    row_start: Array
    column_start: Array
    queries: Float[Array, "query_tile dim"]
    docs: Float[Array, "doc_tile dim"]
    offset: Float[Array, "doc_tile"]
    fresh_rows: Bool[Array, "query_tile"]
    threshold: Float[Array, "query_tile"] | None

    @classmethod
    def cut_out(cls, number, queries, docs, offset, threshold, *, block, tiling: Tiling) -> "_Tile":
        """Returns the inputs of tile `number` of a block, sliced from the arrays of the batch."""
        doc_number, query_number = jnp.divmod(number, tiling.query_tiles)
        row_start = jnp.minimum(query_number * tiling.query_tile, tiling.queries - tiling.query_tile)
        column_start = jnp.minimum(doc_number * tiling.doc_tile, tiling.docs - tiling.doc_tile)
        column_offset = jax.lax.dynamic_slice_in_dim(offset, block * tiling.docs + column_start, tiling.doc_tile)
        fresh_columns = jnp.arange(tiling.doc_tile) + column_start >= doc_number * tiling.doc_tile
        if threshold is not None:
            threshold = jax.lax.dynamic_slice_in_dim(threshold, row_start, tiling.query_tile)
        return cls(
            number=block * tiling.doc_tiles * tiling.query_tiles + number,
            row_start=row_start,
            column_start=column_start,
            queries=jax.lax.dynamic_slice_in_dim(queries, row_start, tiling.query_tile),
            docs=jax.lax.dynamic_slice_in_dim(docs, column_start, tiling.doc_tile),
            offset=jnp.where(fresh_columns, column_offset, LOWEST),
            fresh_rows=jnp.arange(tiling.query_tile) + row_start >= query_number * tiling.query_tile,
            threshold=threshold,
        )

    def rows_of(self, array: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(array, self.row_start, self.queries.shape[0])

    def with_rows(self, array: Array, rows: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(array, rows, self.row_start, axis=0)

    def columns_of(self, array: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(array, self.column_start, self.docs.shape[0])

    def with_columns(self, array: Array, columns: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(array, columns, self.column_start, axis=0)
