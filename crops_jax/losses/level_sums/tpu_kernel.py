"""Level 0 of one block of documents, computed by Pallas kernels for TPU. It is an alternative to tiles.py.

One kernel computes the sums (documents innermost, an online logsumexp in the block of the output), one the gradient of
the queries (documents innermost), and one the gradient of the documents (queries innermost). Each has a grid of tiles
and computes the scores again. A tile of scores never leaves the chip. The kernels exclude named pairs by comparing
column numbers. Code outside the kernels gathers the scores of these pairs and their contributions to the gradients, one
column of pairs at a time.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int32

from crops_jax.losses.level_sums.named_pairs import add_named_gradients, add_named_scores, inside_block
from crops_jax.losses.level_sums.sums import LOWEST
from crops_jax.losses.level_sums.tiles import Gradients, Pulls, RunningSums, merged

# The numbers of queries and documents of a tile. Both are multiples of the sizes of a TPU's registers. A tile of scores
# takes 512 KiB.
_QUERY_TILE = 256
_DOC_TILE = 512
# Embeddings are padded to a multiple of this number, the lanes of a register.
_LANES = 128


class _Block(NamedTuple):
    """The arguments of the kernels, padded to whole tiles.

    Columns of padding are not real documents. Rows of padding contribute nothing to the gradients.

    index: the columns of the named pairs inside this block; -1 for pairs of other blocks.
    """

    temperatures: Float[Array, "temperatures"]
    queries: Float[Array, "queries dim"]
    docs: Float[Array, "docs dim"]
    offset: Float[Array, "1 docs"]
    index: Int32[Array, "queries k"]
    threshold: Float[Array, "queries 1"]

    @classmethod
    def padded(cls, queries, docs, doc_index, block, temperatures, offset, threshold) -> "_Block":
        count = docs.shape[0]
        here = jax.lax.dynamic_slice_in_dim(offset, block * count, count)
        threshold = jnp.full(queries.shape[0], -LOWEST, jnp.float32) if threshold is None else threshold
        q_rest, d_rest = -queries.shape[0] % _QUERY_TILE, -count % _DOC_TILE
        lanes = -queries.shape[1] % _LANES
        return cls(
            temperatures=temperatures,
            queries=jnp.pad(queries, ((0, q_rest), (0, lanes))),
            docs=jnp.pad(docs, ((0, d_rest), (0, lanes))),
            offset=jnp.pad(here, (0, d_rest), constant_values=LOWEST)[None, :],
            index=jnp.pad(inside_block(doc_index, block, count), ((0, q_rest), (0, 0)), constant_values=-1),
            threshold=jnp.pad(threshold, (0, q_rest))[:, None],
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
    doc_index: Int32[Array, "queries k"],
    interpret: bool,
) -> RunningSums:
    """Computes `crops_jax.losses.level_sums.tiles.add_block`; doc_index counts the documents of all blocks."""
    padded = _Block.padded(queries, docs, doc_index, block, temperatures, offset, threshold)
    count, width = padded.queries.shape[0], temperatures.shape[0]
    outputs = [(1, jnp.float32), (width, jnp.float32), (width, jnp.float32), (1, jnp.int32)]
    greatest, total, moment, ignored = (
        found[: queries.shape[0]]
        for found in pl.pallas_call(
            _sums_kernel,
            grid=(count // _QUERY_TILE, padded.docs.shape[0] // _DOC_TILE),
            in_specs=_specs(padded, queries_first=True),
            out_specs=[pl.BlockSpec((_QUERY_TILE, columns), lambda i, j: (i, 0)) for columns, _ in outputs],
            out_shape=[jax.ShapeDtypeStruct((count, columns), dtype) for columns, dtype in outputs],
            interpret=interpret,
        )(*padded)
    )
    index = inside_block(doc_index, block, docs.shape[0])
    return merged(sums, (greatest[None, :, 0], total[None], moment[None]), temperatures)._replace(
        named=add_named_scores(sums.named.reshape(index.shape), queries, docs, index).ravel(),
        ignored=sums.ignored + ignored[:, 0],
    )


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
    doc_index: Int32[Array, "queries k"],
    interpret: bool,
) -> Gradients:
    """Computes `crops_jax.losses.level_sums.tiles.add_gradients`; doc_index counts the documents of all blocks."""
    padded = _Block.padded(queries, docs, doc_index, block, temperatures, offset, threshold)
    rest = ((0, -queries.shape[0] % _QUERY_TILE), (0, 0))
    rows = [jnp.pad(one, rest) for one in (pulls.greatest[:, None], pulls.log_total, pulls.level_0)]
    found = []
    for of_queries in (True, False):
        tiles = padded.queries.shape[0] // _QUERY_TILE, padded.docs.shape[0] // _DOC_TILE
        length, tile = (padded.queries.shape[0], _QUERY_TILE) if of_queries else (padded.docs.shape[0], _DOC_TILE)
        dim = padded.queries.shape[1]
        of_rows = _tile_of_queries(of_queries)
        found.append(
            pl.pallas_call(
                functools.partial(_gradient_kernel, of_queries=of_queries),
                grid=tiles if of_queries else tiles[::-1],
                in_specs=[
                    *_specs(padded, queries_first=of_queries),
                    *(pl.BlockSpec((_QUERY_TILE, one.shape[1]), of_rows) for one in rows),
                ],
                out_specs=pl.BlockSpec((tile, dim), lambda i, j: (i, 0)),
                out_shape=jax.ShapeDtypeStruct((length, dim), jnp.float32),
                interpret=interpret,
            )(*padded, *rows)
        )
    dim = queries.shape[1]
    index = inside_block(doc_index, block, docs.shape[0])
    gradients = add_named_gradients(
        found[0][: queries.shape[0], :dim],
        found[1][: docs.shape[0], :dim],
        queries,
        docs,
        index,
        pulls.named.reshape(index.shape),
    )
    return Gradients(d_queries + gradients[0] * pulls.peak, d_docs + gradients[1] * pulls.peak)


def _sums_kernel(temperatures, queries, docs, offset, index, threshold, greatest, total, moment, ignored) -> None:
    @pl.when(pl.program_id(1) == 0)
    def _():
        greatest[...] = jnp.full(greatest.shape, LOWEST / 2, jnp.float32)
        total[...] = jnp.zeros(total.shape, jnp.float32)
        moment[...] = jnp.zeros(moment.shape, jnp.float32)
        ignored[...] = jnp.zeros(ignored.shape, jnp.int32)

    scores, level_0, near = _tile(queries, docs, offset, index, threshold, doc_tile=pl.program_id(1))
    ignored[...] += (level_0 & near).astype(jnp.int32).sum(axis=1, keepdims=True)
    level_0 &= ~near
    old = greatest[...]
    new = jnp.maximum(old, jnp.where(level_0, scores, LOWEST).max(axis=1, keepdims=True))
    above = jnp.where(level_0, scores - new, LOWEST)
    for which in range(total.shape[1]):
        t, column = temperatures[which], slice(which, which + 1)
        part = jnp.exp(above / t + offset[...])
        decay = jnp.exp((old - new) / t)
        moment[:, column] = decay * (moment[:, column] + total[:, column] * (old - new)) + (part * above).sum(
            axis=1, keepdims=True
        )
        total[:, column] = decay * total[:, column] + part.sum(axis=1, keepdims=True)
    greatest[...] = new


def _gradient_kernel(
    temperatures, queries, docs, offset, index, threshold, greatest, log_total, pull, gradient, *, of_queries: bool
) -> None:
    @pl.when(pl.program_id(1) == 0)
    def _():
        gradient[...] = jnp.zeros(gradient.shape, jnp.float32)

    doc_tile = pl.program_id(1 if of_queries else 0)
    scores, level_0, near = _tile(queries, docs, offset, index, threshold, doc_tile=doc_tile)
    level_0 &= ~near
    above = jnp.where(level_0, scores - greatest[...], LOWEST)
    e = jnp.zeros(scores.shape, jnp.float32)
    for which in range(pull.shape[1]):
        column = slice(which, which + 1)
        e += jnp.exp(above / temperatures[which] + offset[...] - log_total[:, column]) * pull[:, column]
    e = jnp.where(level_0, e, 0.0).astype(queries.dtype)
    if of_queries:
        gradient[...] += _product(e, docs[...], contract=(1, 0))
    else:
        gradient[...] += _product(e, queries[...], contract=(0, 0))


def _tile(queries, docs, offset, index, threshold, *, doc_tile) -> tuple[Array, Array, Array]:
    """Returns the scores of a tile and two masks.

    The first mask selects the real columns that no pair of the row names, the second one the scores that ignore_margin
    ignores.
    """
    scores = _product(queries[...], docs[...], contract=(1, 1))
    column = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1) + doc_tile * _DOC_TILE
    named = jnp.zeros(scores.shape, bool)
    for place in range(index.shape[1]):
        named |= index[:, place : place + 1] == column
    real = jnp.broadcast_to(offset[...] > LOWEST / 2, scores.shape)
    return scores, real & ~named, scores >= threshold[...]


def _product(left: Array, right: Array, *, contract: tuple[int, int]) -> Array:
    precision = jax.lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
    dimensions = (((contract[0],), (contract[1],)), ((), ()))
    return jax.lax.dot_general(left, right, dimensions, precision=precision, preferred_element_type=jnp.float32)


def _specs(block: _Block, *, queries_first: bool) -> list[Any]:
    """Returns the part of each argument that one step of the grid reads.

    The grid is (queries, docs) if queries_first is true, and (docs, queries) otherwise.
    """
    of_queries, of_docs = _tile_of_queries(queries_first), _tile_of_queries(not queries_first)
    dim = block.queries.shape[1]
    return [
        pl.BlockSpec(memory_space=pltpu.SMEM),
        pl.BlockSpec((_QUERY_TILE, dim), of_queries),
        pl.BlockSpec((_DOC_TILE, dim), of_docs),
        pl.BlockSpec((1, _DOC_TILE), lambda i, j: (0, of_docs(i, j)[0])),
        pl.BlockSpec((_QUERY_TILE, block.index.shape[1]), of_queries),
        pl.BlockSpec((_QUERY_TILE, 1), of_queries),
    ]


def _tile_of_queries(first: bool):
    return (lambda i, j: (i, 0)) if first else (lambda i, j: (j, 0))
