"""H-InfoNCE without the score matrix: exact, linear memory, over tiles of documents.

With z = (scores - the greatest of the row) / temperature, entries (the few named pairs of SparseLabels) and level 0
(all other real columns):

1. Forward streams tiles of documents once: an online logsumexp of level 0, A_0, and the z of the entries. From the
   entries come A_l for l = 1..5 and C_l = logsumexp over l' < l of A_l'; an anchor's loss is softplus(C_l - z).
2. Backward needs only those sums: with p = sigmoid(C_l - z) of the anchors, G_l = sum of w p at level l and
   H_m = logsumexp over l > m of (log G_l - C_l), the derivative in a score at level m is
   E = e^(z + H_m) - [anchor] w p.
3. The tiles are made again, E is formed in each and contracted at once: dQ = E K / temperature, dK = E^T Q /
   temperature. Level-0 entries of a tile are masked, never subtracted: a difference of sums has no digits left where
   one score dominates.

A constant of the row changes nothing but rounding: sums are kept in scores until the greatest is known, so that
e^(z + H) is taken of small numbers. Otherwise the rows of E would add up to 0 to 1e-7 / temperature only, and where
documents are alike dQ is all cancellation: an error of 5e-4 at temperature .01.

Memory: the inputs and their gradients, 6 numbers a query, k a query, and one tile.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from crops_jax.labels import Level, SparseLabels

_LOWEST = -1e30
_LEVELS = range(1, max(Level) + 1)
# Scores in one tile (64 MiB in float32), and the narrowest tile, below which matrix products lose speed.
_TILE_PAIRS = 1 << 24
_NARROWEST_TILE = 128


class _Sums(NamedTuple):
    """What forward leaves for backward, beside its inputs."""

    greatest: Float[Array, "queries 1"]  # score of each row, taken off all of them
    entry_z: Float[Array, "queries k"]
    against: Float[Array, "queries levels"]  # C_l, l = 0..5; _LOWEST where nothing is below
    is_anchor: Bool[Array, "queries k"]
    count: Float[Array, ""]


def streaming_h_infonce(
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    labels: SparseLabels,
    temperature: Float[Array, ""],
    query_weights: Float[Array, "queries"],
    doc_mask: Bool[Array, "docs"],
) -> Float[Array, ""]:
    """H-InfoNCE over tiles of documents; see `crops_jax.losses.h_infonce`."""
    if labels.level.shape[1] == 0:  # nothing is named: one column of padding, so that no maximum is of nothing
        empty = jnp.full((query_embeddings.shape[0], 1), -1, jnp.int32)
        labels = SparseLabels(empty, empty)
    named = (labels.level != 0) & doc_mask[jnp.maximum(labels.doc_index, 0)]
    doc_index = jnp.where(named, labels.doc_index, -1)
    level = jnp.where(doc_index >= 0, labels.level, 0)
    queries, docs = query_embeddings.shape[0], doc_embeddings.shape[0]
    return _loss(
        query_embeddings, doc_embeddings, temperature, doc_index, level, query_weights, doc_mask, _tile(queries, docs)
    )


def _tile(queries: int, docs: int) -> int:
    width = _TILE_PAIRS // queries // _NARROWEST_TILE * _NARROWEST_TILE
    return min(docs, max(width, _NARROWEST_TILE))


@functools.partial(jax.custom_vjp, nondiff_argnums=(7,))
def _loss(query_embeddings, doc_embeddings, temperature, doc_index, level, query_weights, doc_mask, tile):
    return _forward(query_embeddings, doc_embeddings, temperature, doc_index, level, query_weights, doc_mask, tile)[0]


def _forward(query_embeddings, doc_embeddings, temperature, doc_index, level, query_weights, doc_mask, tile):
    q = query_embeddings
    queries = q.shape[0]

    def accumulate(number, carry):
        greatest, total, entry_scores = carry
        start, rows = _rows_of_tile(doc_embeddings, number, tile)
        scores = _product(q, rows.T)
        level_0 = _level_0(doc_index, doc_mask, start, number, tile)
        new_greatest = jnp.maximum(greatest, jnp.where(level_0, scores, _LOWEST).max(axis=1))
        below = jnp.where(level_0, (scores - new_greatest[:, None]) / temperature, _LOWEST)
        total = total * jnp.exp((greatest - new_greatest) / temperature) + jnp.exp(below).sum(axis=1)
        here, column = _entries_in_tile(doc_index, start, tile)
        entry_scores = jnp.where(here, jnp.take_along_axis(scores, column, axis=1), entry_scores)
        return new_greatest, total, entry_scores

    start = (
        jnp.full(queries, _LOWEST, jnp.float32),
        jnp.zeros(queries, jnp.float32),
        jnp.zeros(doc_index.shape, jnp.float32),
    )
    tiles = _tiles(doc_embeddings, tile)
    greatest_0, total, entry_scores = jax.lax.fori_loop(0, tiles, accumulate, start)
    greatest = jnp.maximum(greatest_0, jnp.where(doc_index >= 0, entry_scores, _LOWEST).max(axis=1))
    greatest = jnp.where(greatest > _LOWEST / 2, greatest, 0.0)
    entry_z = jnp.where(doc_index >= 0, (entry_scores - greatest[:, None]) / temperature, 0.0)
    log_total = jnp.log(jnp.where(total > 0, total, 1.0))
    level_0 = jnp.where(total > 0, (greatest_0 - greatest) / temperature + log_total, _LOWEST)
    against = _sums_below(level_0, entry_z, level)

    entry_against = jnp.take_along_axis(against, jnp.maximum(level, 0), axis=1)
    is_anchor = (level >= 1) & (entry_against > _LOWEST / 2)
    loss = jnp.where(is_anchor, jax.nn.softplus(jnp.where(is_anchor, entry_against - entry_z, 0.0)), 0.0)
    count = (is_anchor * query_weights[:, None]).sum()
    mean = jnp.where(count > 0, (loss * query_weights[:, None]).sum() / jnp.where(count > 0, count, 1.0), 0.0)
    saved = _Sums(greatest[:, None], entry_z, against, is_anchor, count)
    return mean, (query_embeddings, doc_embeddings, temperature, doc_index, level, query_weights, doc_mask, saved)


def _backward(tile, residuals, cotangent):
    q, docs, temperature, doc_index, level, query_weights, doc_mask, saved = residuals
    # Per-anchor weight of the mean, 0 where the batch has no anchor.
    scale = jnp.where(saved.count > 0, cotangent / jnp.where(saved.count > 0, saved.count, 1.0), 0.0)
    positive = jnp.maximum(level, 0)
    entry_against = jnp.take_along_axis(saved.against, positive, axis=1)
    pull = jnp.where(
        saved.is_anchor,
        query_weights[:, None] * jax.nn.sigmoid(jnp.where(saved.is_anchor, entry_against - saved.entry_z, 0.0)),
        0.0,
    )
    push = _pushes(pull, level, saved.against)
    entry_push = jnp.take_along_axis(push, positive, axis=1)
    entry_e = jnp.where((doc_index >= 0) & (level >= 0), jnp.exp(saved.entry_z + entry_push) - pull, 0.0) * scale
    # Rows of E add up to 0, so a constant of the row may be taken off z in the derivative of the temperature, which
    # otherwise loses three digits where the scores are large and alike.
    row_z = jnp.where(saved.is_anchor, saved.entry_z, _LOWEST).max(axis=1)
    row_z = jnp.where(row_z > _LOWEST / 2, row_z, 0.0)
    d_log = (entry_e * (saved.entry_z - row_z[:, None])).sum()

    def accumulate(number, carry):
        d_q, d_docs, d_log = carry
        start, rows = _rows_of_tile(docs, number, tile)
        z = (_product(q, rows.T) - saved.greatest) / temperature
        level_0 = _level_0(doc_index, doc_mask, start, number, tile)
        e = jnp.where(level_0, jnp.exp(jnp.where(level_0, z + push[:, :1], _LOWEST)) * scale, 0.0)
        d_log += (e * jnp.where(level_0, z - row_z[:, None], 0.0)).sum()
        here, column = _entries_in_tile(doc_index, start, tile)
        here &= column + start >= number * tile
        e = e.at[jnp.arange(q.shape[0])[:, None], column].add(jnp.where(here, entry_e, 0.0))
        e = e.astype(q.dtype)
        d_q += _product(e, rows)
        part = jax.lax.dynamic_slice_in_dim(d_docs, start, tile) + _product(e.T, q)
        return d_q, jax.lax.dynamic_update_slice_in_dim(d_docs, part, start, axis=0), d_log

    zeros = (jnp.zeros(q.shape, jnp.float32), jnp.zeros(docs.shape, jnp.float32), d_log)
    d_q, d_docs, d_log = jax.lax.fori_loop(0, _tiles(docs, tile), accumulate, zeros)
    none = (_no_gradient(doc_index), _no_gradient(level), jnp.zeros_like(query_weights), _no_gradient(doc_mask))
    return (
        (d_q / temperature).astype(q.dtype),
        (d_docs / temperature).astype(docs.dtype),
        -d_log / temperature,
        *none,
    )


_loss.defvjp(_forward, _backward)


def _sums_below(level_0, entry_z, level) -> Float[Array, "queries levels"]:
    """C_l for l = 0..5: logsumexp of z over the unignored columns of levels below l."""
    below = [jnp.full_like(level_0, _LOWEST), level_0]
    for step in _LEVELS[:-1]:
        here = level == step
        of_level = jax.nn.logsumexp(jnp.where(here, entry_z, _LOWEST), axis=1)
        below.append(jnp.logaddexp(below[-1], jnp.where(here.any(axis=1), of_level, _LOWEST)))
    return jnp.stack(below, axis=1)


def _pushes(pull, level, against) -> Float[Array, "queries levels"]:
    """H_m for m = 0..5: the logarithm of how strongly the anchors above level m push e^z of a column at level m."""
    above = [jnp.full(pull.shape[0], _LOWEST, jnp.float32)]
    for step in reversed(_LEVELS):
        strength = jnp.where(level == step, pull, 0.0).sum(axis=1)
        pushed = strength > 0
        log_ratio = jnp.log(jnp.where(pushed, strength, 1.0)) - jnp.where(pushed, against[:, step], 0.0)
        above.append(jnp.logaddexp(above[-1], jnp.where(pushed, log_ratio, _LOWEST)))
    return jnp.stack(above[::-1], axis=1)


def _tiles(docs: Array, tile: int) -> int:
    return -(-docs.shape[0] // tile)


def _rows_of_tile(docs: Array, number: Array, tile: int) -> tuple[Array, Array]:
    # The last tile is moved left so that it is as wide as the others; what it repeats is masked in _level_0.
    start = jnp.minimum(number * tile, docs.shape[0] - tile)
    return start, jax.lax.dynamic_slice_in_dim(docs, start, tile)


def _level_0(doc_index, doc_mask, start, number, tile) -> Bool[Array, "queries tile"]:
    """Columns of a tile that are real, not named by the row's entries, and not met in the tile before."""
    fresh = jnp.arange(tile) + start >= number * tile
    columns = jax.lax.dynamic_slice_in_dim(doc_mask, start, tile) & fresh
    here, column = _entries_in_tile(doc_index, start, tile)
    rows = jnp.arange(doc_index.shape[0])[:, None]
    named = jnp.zeros((doc_index.shape[0], tile), bool)
    named = named.at[rows, jnp.where(here, column, tile)].set(True, mode="drop")
    return columns[None, :] & ~named


def _entries_in_tile(doc_index, start, tile) -> tuple[Bool[Array, "queries k"], Int32[Array, "queries k"]]:
    column = doc_index - start
    here = (doc_index >= 0) & (column >= 0) & (column < tile)
    return here, jnp.where(here, column, 0)


def _product(left: Array, right: Array) -> Float[Array, "m n"]:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


def _no_gradient(array: Array) -> np.ndarray:
    return np.zeros(array.shape, jax.dtypes.float0)
