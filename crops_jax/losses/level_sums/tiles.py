"""One block of documents against one device's queries, tile by tile: forward sums, and both gradients.

Forward keeps, for each query, the greatest score of level 0 met so far and sums relative to it (an online logsumexp).
Backward makes every tile again, forms the derivative E of the loss in its scores and contracts it at once:
dQ += E K, dK += E^T Q. Named pairs are taken out of a tile, never subtracted from a sum: a difference of sums has no
digits left where one score dominates.

Sums are kept in scores, not divided by the temperature: e is taken of small numbers, and the derivative in
temperature needs the mean of those differences.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from crops_jax.losses.level_sums.named_pairs import NamedPairs, Tiling, for_pairs_of_tile
from crops_jax.losses.level_sums.sums import LOWEST, product


class RunningSums(NamedTuple):
    """Forward's state after some tiles.

    greatest: of level 0 so far, LOWEST / 2 at first. total: sum of e^((s - greatest) / t + offset).
    moment: sum of the same times (s - greatest). named: scores of the named pairs. ignored: columns taken out.
    """

    greatest: Float[Array, "queries"]
    total: Float[Array, "queries temperatures"]
    moment: Float[Array, "queries temperatures"]
    named: Float[Array, "pairs"]
    ignored: Int32[Array, "queries"]


class Pulls(NamedTuple):
    """Backward's inputs beside those of forward.

    greatest, log_total: what forward found, log_total being -LOWEST where a row has no level 0.
    level_0: derivative of the loss in the log_total of each temperature, divided by that temperature and by peak.
    named: derivative in the scores of the named pairs, divided by peak.
    peak: the greatest of all, so that narrow types hold the quotients.
    """

    greatest: Float[Array, "queries"]
    log_total: Float[Array, "queries temperatures"]
    level_0: Float[Array, "queries temperatures"]
    named: Float[Array, "pairs"]
    peak: Float[Array, ""]


class Gradients(NamedTuple):
    queries: Float[Array, "queries dim"]
    docs: Float[Array, "docs dim"]


def no_sums(doc_index: Int32[Array, "queries k"], temperatures: Float[Array, "temperatures"]) -> RunningSums:
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
    """The sums with one more block of documents, the `block`-th of all."""

    def add_tile(number: Array, sums: RunningSums) -> RunningSums:
        tile = _Tile.at(number, queries, docs, offset, threshold, block=block, tiling=tiling)

        def take_named(carry, row, column, place):
            scores, named = carry
            found = scores.at[row, column].get(mode="fill", fill_value=0.0)
            return scores.at[row, column].set(LOWEST, mode="drop"), named.at[place].set(found, mode="drop")

        scores, named = for_pairs_of_tile(
            pairs,
            tile.number,
            take_named,
            (tile.scores, sums.named),
            size=tiling.chunk,
            row_start=tile.row_start,
            column_start=tile.column_start,
        )
        level_0 = tile.real & (scores > LOWEST / 2)
        before = jax.tree.map(tile.rows_of, (sums.greatest, sums.total, sums.moment, sums.ignored))
        greatest, total, moment, ignored = before
        if tile.near is not None:
            ignored += (level_0 & tile.near).sum(axis=1, dtype=jnp.int32)
            level_0 &= ~tile.near
        new = jnp.maximum(greatest, jnp.where(level_0, scores, LOWEST).max(axis=1))
        above = jnp.where(level_0, scores - new[:, None], LOWEST)
        rise = (greatest - new)[:, None]
        parts = [jnp.exp(above / t + tile.offset[None, :]) for t in temperatures]
        decay = jnp.exp(rise / temperatures[None, :])
        moment = decay * (moment + total * rise) + jnp.stack([(part * above).sum(axis=1) for part in parts], axis=1)
        total = decay * total + jnp.stack([part.sum(axis=1) for part in parts], axis=1)
        after = jax.tree.map(tile.with_rows, tuple(sums[:3]) + (sums.ignored,), (new, total, moment, ignored))
        return RunningSums(after[0], after[1], after[2], named, after[3])

    return jax.lax.fori_loop(0, tiling.doc_tiles * tiling.query_tiles, add_tile, sums)


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
) -> Gradients:
    """Both gradients with the part that one block of documents adds; float32, multiplied by nothing more."""

    def add_tile(number: Array, gradients: Gradients) -> Gradients:
        tile = _Tile.at(number, queries, docs, offset, threshold, block=block, tiling=tiling)
        greatest, log_total, pull = map(tile.rows_of, (pulls.greatest, pulls.log_total, pulls.level_0))
        above = tile.scores - greatest[:, None]
        e = sum(
            jnp.exp(above / t + (tile.offset[None, :] - log_total[:, which, None])) * pull[:, which, None]
            for which, t in enumerate(temperatures)
        )
        level_0 = tile.real if tile.near is None else tile.real & ~tile.near

        def put_named(e, row, column, place):
            return e.at[row, column].set(pulls.named.at[place].get(mode="fill", fill_value=0.0), mode="drop")

        e = for_pairs_of_tile(
            pairs,
            tile.number,
            put_named,
            jnp.where(level_0, e, 0.0),
            size=tiling.chunk,
            row_start=tile.row_start,
            column_start=tile.column_start,
        )
        e = e.astype(queries.dtype)
        d_q = tile.rows_of(gradients.queries) + product(e, tile.docs) * pulls.peak
        d_d = tile.columns_of(gradients.docs) + product(e.T, tile.queries) * pulls.peak
        return Gradients(tile.with_rows(gradients.queries, d_q), tile.with_columns(gradients.docs, d_d))

    return jax.lax.fori_loop(0, tiling.doc_tiles * tiling.query_tiles, add_tile, Gradients(d_queries, d_docs))


class _Tile(NamedTuple):
    """Scores of one tile and what is level 0 in it, named pairs aside.

    real: real columns that no earlier tile held, in rows that none held. near: columns that ignore_margin takes out.
    """

    number: Array
    row_start: Array
    column_start: Array
    queries: Float[Array, "query_tile dim"]
    docs: Float[Array, "doc_tile dim"]
    scores: Float[Array, "query_tile doc_tile"]
    offset: Float[Array, "doc_tile"]
    real: Bool[Array, "query_tile doc_tile"]
    near: Bool[Array, "query_tile doc_tile"] | None

    @classmethod
    def at(cls, number, queries, docs, offset, threshold, *, block, tiling: Tiling) -> "_Tile":
        doc_number, query_number = jnp.divmod(number, tiling.query_tiles)
        row_start = jnp.minimum(query_number * tiling.query_tile, tiling.queries - tiling.query_tile)
        column_start = jnp.minimum(doc_number * tiling.doc_tile, tiling.docs - tiling.doc_tile)
        q = jax.lax.dynamic_slice_in_dim(queries, row_start, tiling.query_tile)
        d = jax.lax.dynamic_slice_in_dim(docs, column_start, tiling.doc_tile)
        scores = product(q, d.T)
        of_columns = jax.lax.dynamic_slice_in_dim(offset, block * tiling.docs + column_start, tiling.doc_tile)
        fresh_columns = jnp.arange(tiling.doc_tile) + column_start >= doc_number * tiling.doc_tile
        fresh_rows = jnp.arange(tiling.query_tile) + row_start >= query_number * tiling.query_tile
        near = None
        if threshold is not None:
            near = scores >= jax.lax.dynamic_slice_in_dim(threshold, row_start, tiling.query_tile)[:, None]
        return cls(
            number=block * tiling.doc_tiles * tiling.query_tiles + number,
            row_start=row_start,
            column_start=column_start,
            queries=q,
            docs=d,
            scores=scores,
            offset=of_columns,
            real=(fresh_columns & (of_columns > LOWEST / 2))[None, :] & fresh_rows[:, None],
            near=near,
        )

    def rows_of(self, array: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(array, self.row_start, self.queries.shape[0])

    def with_rows(self, array: Array, rows: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(array, rows, self.row_start, axis=0)

    def columns_of(self, array: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(array, self.column_start, self.docs.shape[0])

    def with_columns(self, array: Array, columns: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(array, columns, self.column_start, axis=0)
