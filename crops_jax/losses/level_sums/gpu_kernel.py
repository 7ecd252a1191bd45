"""Level 0 of one block of documents, computed by Pallas kernels for NVIDIA GPUs (Triton). It is an alternative to
tiles.py.

The forward pass is one kernel. Each program keeps the running sums of a tile of queries and iterates over tiles of
documents (an online logsumexp); scores never leave the chip. Several programs can divide the documents of a tile of
queries among them, so that small batches also occupy the whole device.

The backward pass is a kernel that computes E, the derivative of the loss in the scores, of one large tile in the type
of the embeddings, followed by two products by XLA: dQ += E K, dK += E^T Q. Kernels that contract E on the chip would
have to compute all scores twice, once for dQ and once for dK, and again for every part into which a wide gradient must
be divided to fit the registers. They would need at least 10 B N d floating-point operations in total; this code needs
8 B N d. The size of E is at most 128 MiB for any batch.

Named pairs are excluded, not subtracted. The forward kernel marks the named pairs of its tile by a product of two
one-hot matrices, with work proportional to their number. The backward pass overwrites the derivative of level 0 in E
with that of the named pairs (tiles.add_gradients).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float, Int32

from crops_jax.losses.level_sums.named_pairs import NamedPairs, Tiling, add_named_scores, inside_block
from crops_jax.losses.level_sums.sums import LOWEST
from crops_jax.losses.level_sums.tiles import RunningSums, merged

# The number of named pairs that one product of one-hot matrices excludes. It is the minimum size that a tensor core
# contracts.
_PAIRS = 16
# The number of programs that occupies a large device: two for each of the 132 multiprocessors of an H100.
_PROGRAMS = 264
# The exponentials are computed as powers of 2, because the device has an instruction for these.
_LOG2_E = float(np.log2(np.e))


class TileSize(NamedTuple):
    """The sizes of one kernel.

    They are the rows (queries) and columns (docs) of a tile, the components of the embeddings per product, and the
    warps and pipeline stages of a program.
    """

    queries: int
    docs: int
    components: int
    warps: int
    stages: int


class KernelSizes(NamedTuple):
    """The sizes of the forward kernel, which computes the sums, and of the kernel that computes the derivative."""

    sums: TileSize
    derivative: TileSize


# The components of a tile are read from the second-level cache once for each tile, so larger tiles read fewer bytes:
# 128 x 256 tiles do 85 floating-point operations per byte, 128 x 128 tiles do 64. In bfloat16 a program takes stages *
# (queries + docs) * components * 2 bytes of shared memory. A multiprocessor of an H100 has 228 KiB of it, that of an
# A100 has 164 KiB, and that of an L4 or RTX 4090 has 100 KiB. The sizes are:
#
#   _WIDE     3 * (128 + 256) * 64 * 2 B = 144 KiB. One program runs on a multiprocessor, and its sums occupy all
#             registers.
#   _PAIRED   3 * (128 + 128) * 64 * 2 B = 96 KiB. Two programs run on a multiprocessor of an H100, so that one of them
#             multiplies while the other one computes exponentials, which take as long as the products at dimension 256.
#   _WHOLE    128 * 256 * 2 B for the queries, which remain loaded, and 2 * 64 * 256 * 2 B for the documents, 128 KiB at
#             most. All components are multiplied at once, so that the loop over documents is the loop that loads ahead.
#   _SMALL    2 * (64 + 64) * 64 * 2 B = 32 KiB.
#   _FLOAT32  2 * (64 + 64) * 32 * 4 B = 32 KiB. It uses no tensor cores, because they would round float32.
_WIDE = TileSize(128, 256, 64, 8, 3)
_PAIRED = TileSize(128, 128, 64, 8, 3)
_WHOLE = TileSize(128, 64, 256, 8, 2)
_SMALL = TileSize(64, 64, 64, 4, 2)
_FLOAT32 = TileSize(64, 64, 32, 4, 2)
# The maximum dimension for which all components of a tile of queries remain loaded.
_MOST_WHOLE_COMPONENTS = 256
# The sizes by the prefixes of the name of a device: first for embeddings up to the maximum dimension above, then for
# longer ones. The last row, without prefixes, is for all other devices.
_SIZES: tuple[tuple[tuple[str, ...], KernelSizes, KernelSizes], ...] = (
    (
        ("NVIDIA H100", "NVIDIA H200", "NVIDIA GH200", "NVIDIA B200", "NVIDIA GB200"),
        KernelSizes(_WHOLE, _PAIRED),
        KernelSizes(_WIDE, _WIDE),
    ),
    (("NVIDIA A100",), KernelSizes(_WHOLE, _PAIRED), KernelSizes(_PAIRED, _PAIRED)),
    ((), KernelSizes(_SMALL, _SMALL), KernelSizes(_SMALL, _SMALL)),
)


def kernel_sizes(device_kind: str, *, dtype: jnp.dtype, dim: int) -> KernelSizes:
    """Returns the sizes of the kernels for a device, by its name in JAX, and a type and dimension of embeddings."""
    if jnp.dtype(dtype).itemsize > 2:
        return KernelSizes(_FLOAT32, _FLOAT32)
    _, held, longer = next(row for row in _SIZES if device_kind.startswith(row[0]) or not row[0])
    if dim > _MOST_WHOLE_COMPONENTS:
        return longer
    if held.sums is not _WHOLE:
        return held
    return held._replace(sums=_WHOLE._replace(components=max(16, pl.next_power_of_2(dim))))


def tiling_of_sums(tiling: Tiling, size: TileSize) -> Tiling:
    """Returns `tiling` with the tiles of the forward kernel.

    The arguments of this kernel are padded, so that its last tiles are not moved back.
    """
    return tiling._replace(query_tile=size.queries, doc_tile=size.docs, chunk=_PAIRS)


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
    pairs: NamedPairs,
    tiling: Tiling,
    size: TileSize,
    interpret: bool,
) -> RunningSums:
    """Computes `crops_jax.losses.level_sums.tiles.add_block`.

    `doc_index` counts the documents of all blocks, and `tiling` must be the result of tiling_of_sums.
    """
    count, width = docs.shape[0], temperatures.shape[0]
    here = jax.lax.dynamic_slice_in_dim(offset, block * count, count)
    tiles = tiling.query_tiles * tiling.doc_tiles
    first = jax.lax.dynamic_slice_in_dim(pairs.first, block * tiles, tiles + 1)
    parts = min(tiling.doc_tiles, max(1, _PROGRAMS // tiling.query_tiles))
    rows = tiling.query_tiles * size.queries
    shapes = [((parts, rows), jnp.float32), *[((parts, width, rows), jnp.float32)] * 2, ((parts, rows), jnp.int32)]
    of_rows = pl.BlockSpec((size.queries,), lambda i, part: (i,))
    greatest, total, moment, ignored = pl.pallas_call(
        functools.partial(_sums_kernel, size=size, tiling=tiling, parts=parts),
        grid=(tiling.query_tiles, parts),
        in_specs=[
            pl.BlockSpec(),
            pl.BlockSpec((size.queries, _padded(queries.shape[1], size.components)), lambda i, part: (i, 0)),
            *[pl.BlockSpec()] * 2,
            of_rows,
            *[pl.BlockSpec()] * 3,
        ],
        out_specs=[
            pl.BlockSpec((None, size.queries), lambda i, part: (part, i)),
            *[pl.BlockSpec((None, width, size.queries), lambda i, part: (part, 0, i))] * 2,
            pl.BlockSpec((None, size.queries), lambda i, part: (part, i)),
        ],
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes],
        compiler_params=plgpu.CompilerParams(num_warps=size.warps, num_stages=size.stages),
        interpret=interpret,
    )(
        temperatures,
        _whole_tiles(queries, size.queries, size.components),
        _whole_tiles(docs, size.docs, size.components),
        jnp.pad(here, (0, -count % size.docs), constant_values=LOWEST),
        jnp.pad(_or_none(threshold, queries.shape[0]), (0, rows - queries.shape[0])),
        first,
        pairs.row,
        pairs.column,
    )
    index = inside_block(doc_index, block, count)
    named = add_named_scores(sums.named.reshape(index.shape), queries, docs, index).ravel()
    ignored = sums.ignored + ignored[:, : queries.shape[0]].sum(axis=0)
    found = (greatest[..., : queries.shape[0]], *(one.swapaxes(1, 2)[:, : queries.shape[0]] for one in (total, moment)))
    return merged(sums, found, temperatures)._replace(named=named, ignored=ignored)


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
    size: TileSize,
    interpret: bool,
) -> Float[Array, "queries docs"]:
    """Computes `crops_jax.losses.level_sums.tiles.level_0_derivative`."""
    count, columns = queries.shape[0], docs.shape[0]
    rest, width = -count % size.queries, temperatures.shape[0]
    padded_queries = _whole_tiles(queries, size.queries, size.components)
    padded_docs = _whole_tiles(docs, size.docs, size.components)
    rows, dim = padded_queries.shape
    of_rows = pl.BlockSpec((size.queries,), lambda i, j: (i,))
    by_temperature = pl.BlockSpec((width, size.queries), lambda i, j: (0, i))
    e = pl.pallas_call(
        functools.partial(_derivative_kernel, size=size),
        grid=(rows // size.queries, padded_docs.shape[0] // size.docs),
        in_specs=[
            pl.BlockSpec(),
            pl.BlockSpec((size.queries, dim), lambda i, j: (i, 0)),
            pl.BlockSpec((size.docs, dim), lambda i, j: (j, 0)),
            pl.BlockSpec((size.docs,), lambda i, j: (j,)),
            of_rows,
            of_rows,
            by_temperature,
            by_temperature,
        ],
        out_specs=pl.BlockSpec((size.queries, size.docs), lambda i, j: (i, j)),
        out_shape=jax.ShapeDtypeStruct((rows, padded_docs.shape[0]), queries.dtype),
        compiler_params=plgpu.CompilerParams(num_warps=size.warps, num_stages=size.stages),
        interpret=interpret,
    )(
        temperatures,
        padded_queries,
        padded_docs,
        jnp.pad(offset, (0, -columns % size.docs), constant_values=LOWEST),
        jnp.pad(_or_none(threshold, count), (0, rest)),
        jnp.pad(greatest, (0, rest)),
        jnp.pad(log_total.T, ((0, 0), (0, rest)), constant_values=-LOWEST),
        jnp.pad(pull.T, ((0, 0), (0, rest))),
    )
    return e[:count, :columns]


def _sums_kernel(
    temperatures,
    queries,
    docs,
    offset,
    threshold,
    first,
    row,
    column,
    *outputs,
    size: TileSize,
    tiling: Tiling,
    parts: int,
) -> None:
    query_tile, part = pl.program_id(0), pl.program_id(1)
    each = -(-tiling.doc_tiles // parts)
    rates = [_LOG2_E / temperatures[which] for which in range(temperatures.shape[0])]
    limit = threshold[...]
    held = queries[...] if queries.shape[1] == size.components else None

    def add_tile(doc_tile: Array, carry: tuple) -> tuple:
        old, totals, moments, ignored = carry
        start = doc_tile * size.docs
        scores = _scores(queries, docs, pl.ds(start, size.docs), held=held, size=size)
        begin, end = (first[doc_tile * tiling.query_tiles + query_tile + place] for place in (0, 1))
        scores = _without_named(
            scores, row, column, begin, end, row_start=query_tile * size.queries, column_start=start
        )
        shift = offset[pl.ds(start, size.docs)]
        near = scores >= limit[:, None]
        level_0 = (shift > LOWEST / 2)[None, :] & (scores > LOWEST / 2)
        ignored += (level_0 & near).astype(jnp.int32).sum(axis=1)
        level_0 &= ~near
        new = jnp.maximum(old, jnp.where(level_0, scores, LOWEST).max(axis=1))
        above = jnp.where(level_0, scores - new[:, None], LOWEST)
        rise, shift = old - new, shift * _LOG2_E
        after = []
        for total, moment, rate in zip(totals, moments, rates, strict=True):
            e = jnp.exp2(above * rate + shift[None, :])
            decay = jnp.exp2(rise * rate)
            after.append((decay * total + e.sum(axis=1), decay * (moment + total * rise) + (e * above).sum(axis=1)))
        return new, [total for total, _ in after], [moment for _, moment in after], ignored

    none = [jnp.zeros(size.queries, jnp.float32) for _ in rates]
    start = (jnp.full(size.queries, LOWEST / 2, jnp.float32), none, none, jnp.zeros(size.queries, jnp.int32))
    last = jnp.minimum((part + 1) * each, tiling.doc_tiles)
    found = jax.lax.fori_loop(part * each, last, add_tile, start)
    outputs[0][...] = found[0]
    for which in range(len(rates)):
        outputs[1][which, :] = found[1][which]
        outputs[2][which, :] = found[2][which]
    outputs[3][...] = found[3]


def _derivative_kernel(
    temperatures, queries, docs, offset, threshold, greatest, log_total, pull, e, *, size: TileSize
) -> None:
    scores = _scores(queries, docs, pl.ds(0, size.docs), held=None, size=size)
    above = scores - greatest[...][:, None]
    shift = offset[...][None, :] * _LOG2_E
    found = jnp.zeros(scores.shape, jnp.float32)
    for which in range(temperatures.shape[0]):
        rate = _LOG2_E / temperatures[which]
        total = log_total[which, :][:, None] * _LOG2_E
        found += jnp.exp2(above * rate + (shift - total)) * pull[which, :][:, None]
    e[...] = jnp.where(scores < threshold[...][:, None], found, 0.0).astype(e.dtype)


def _scores(queries, docs, columns, *, held: Array | None, size: TileSize) -> Float[Array, "queries docs"]:
    """Returns the scores of the program's queries and some documents.

    `held` is the array of all components of the queries, or None if they are not loaded as a whole.
    """
    if held is not None:
        return _product(held, docs[columns, :])

    def add(number: Array, scores: Array) -> Array:
        part = pl.ds(number * size.components, size.components)
        return scores + _product(queries[:, part], docs[columns, part])

    none = jnp.zeros((size.queries, size.docs), jnp.float32)
    return jax.lax.fori_loop(0, queries.shape[1] // size.components, add, none)


def _product(left: Array, right: Array) -> Array:
    """Returns left @ right.T with float32 sums; products of float32 do not use tensor cores."""
    precision = jax.lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
    dimensions = (((1,), (1,)), ((), ()))
    return jax.lax.dot_general(left, right, dimensions, precision=precision, preferred_element_type=jnp.float32)


def _without_named(scores: Array, row, column, begin: Array, end: Array, *, row_start: Array, column_start: Array):
    """Returns the scores of a tile with LOWEST at its named pairs, which are the pairs from `begin` to `end`."""

    def take_out(turn: Array, scores: Array) -> Array:
        at = begin + turn * _PAIRS
        used = at + jnp.arange(_PAIRS) < end
        rows = jnp.where(used, row[pl.ds(at, _PAIRS)] - row_start, -1)
        columns = column[pl.ds(at, _PAIRS)] - column_start
        is_row = (jnp.arange(scores.shape[0])[:, None] == rows[None, :]).astype(jnp.bfloat16)
        is_column = (jnp.arange(scores.shape[1])[:, None] == columns[None, :]).astype(jnp.bfloat16)
        return jnp.where(_product(is_row, is_column) > 0, LOWEST, scores)

    return jax.lax.fori_loop(0, jax.lax.div(end - begin + (_PAIRS - 1), _PAIRS), take_out, scores)


def _whole_tiles(array: Array, rows: int, columns: int) -> Array:
    return jnp.pad(array, ((0, -array.shape[0] % rows), (0, -array.shape[1] % columns)))


def _padded(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _or_none(threshold: Float[Array, "queries"] | None, queries: int) -> Float[Array, "queries"]:
    """Returns the threshold; without one, it returns a threshold that no score reaches."""
    return jnp.full(queries, -LOWEST, jnp.float32) if threshold is None else threshold
