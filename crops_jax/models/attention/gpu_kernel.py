"""Pallas kernels for NVIDIA GPUs (Triton) that compute attention within the segments of a row.

The algorithm is FlashAttention-2 (arXiv 2307.08691): a program takes a block of tokens, reads the row block by block,
and updates a maximum and a sum. Scores never leave the chip. The forward pass stores the logsumexp of each token, and
the backward pass computes the scores again: one kernel computes the gradient of the queries, and another those of keys
and values, in which a program sums over the heads that share them. No addition is atomic, so every run has the same
result. The tokens of another segment have a weight of exactly 0.

Products are summed in float32, and weights have the type of the states, as in crops_jax.models.attention.plain.attend.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float, Int32

from crops_jax.models.attention.plain import MASKED
from crops_jax.models.layers import precision

# The segments of positions beyond the row. They differ, and differ from -1, the segment of padding, so that these
# positions neither see a token nor are seen.
_OUTSIDE_BLOCK, _OUTSIDE_ROW = -3, -2
# The tokens of a block, as many as the registers of a program hold. float32 uses no tensor cores, which would round.
_BLOCK, _FLOAT32_BLOCK = 64, 32
# The minimum number of columns that a tensor core multiplies.
_LEAST_COLUMNS = 16


class _Shape(NamedTuple):
    """The sizes of a call and of its blocks. Triton requires blocks whose sizes are powers of 2."""

    rows: int
    tokens: int
    heads: int
    groups: int
    width: int
    block: int

    @classmethod
    def from_arrays(cls, query: Array, key: Array) -> "_Shape":
        block = _FLOAT32_BLOCK if query.dtype == jnp.float32 else _BLOCK
        rows, tokens, heads, width = query.shape
        return cls(rows, tokens, heads, key.shape[2], width, block)

    @property
    def columns(self) -> int:
        """The number of columns of a block: the width, padded."""
        return max(_LEAST_COLUMNS, pl.next_power_of_2(self.width))

    @property
    def blocks(self) -> int:
        """The number of blocks in a row."""
        return -(-self.tokens // self.block)

    @property
    def row(self) -> int:
        """The number of tokens in a row, padded to whole blocks."""
        return self.blocks * self.block

    @property
    def shared(self) -> int:
        """The number of heads that share keys and values."""
        return self.heads // self.groups


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def attend_segments(
    query: Float[Array, "rows tokens heads width"],
    key: Float[Array, "rows tokens groups width"],
    value: Float[Array, "rows tokens groups width"],
    segments: Int32[Array, "rows tokens"],
    causal: bool,
    interpret: bool = False,
) -> Float[Array, "rows tokens heads width"]:
    """Returns scaled dot-product attention among the tokens of each segment.

    Head h uses key and value of group h // (heads / groups).

    Args:
      causal: a token sees only itself and earlier tokens.
      interpret: the kernels run in Pallas' interpreter, on any device.
    """
    return _forward(query, key, value, segments, causal, interpret)[0]


def _forward(query, key, value, segments, causal, interpret):
    shape = _Shape.from_arrays(query, key)
    mixed, lse = pl.pallas_call(
        functools.partial(_forward_kernel, shape=shape, causal=causal),
        grid=(shape.rows, shape.heads, shape.blocks),
        in_specs=[_block_of_head(shape), *[_row_of_group(shape)] * 2, _segments(shape)],
        out_specs=[_block_of_head(shape), _numbers_of_block(shape)],
        out_shape=[
            jax.ShapeDtypeStruct(query.shape, query.dtype),
            jax.ShapeDtypeStruct((shape.rows, shape.heads, shape.tokens), jnp.float32),
        ],
        compiler_params=_compiler(),
        interpret=interpret,
    )(query, key, value, segments)
    return mixed, (query, key, value, segments, mixed, lse)


def _backward(causal, interpret, saved, d_mixed):
    query, key, value, segments, mixed, lse = saved
    shape = _Shape.from_arrays(query, key)
    # The derivative of a softmax needs, for each token, the sum of its weights times their derivatives.
    expected = (mixed.astype(jnp.float32) * d_mixed.astype(jnp.float32)).sum(axis=-1).transpose(0, 2, 1)
    arguments = (query, key, value, segments, d_mixed, lse, expected)
    d_query = pl.pallas_call(
        functools.partial(_query_gradient_kernel, shape=shape, causal=causal),
        grid=(shape.rows, shape.heads, shape.blocks),
        in_specs=[
            _block_of_head(shape),
            *[_row_of_group(shape)] * 2,
            _segments(shape),
            _block_of_head(shape),
            *[_numbers_of_block(shape)] * 2,
        ],
        out_specs=_block_of_head(shape),
        out_shape=jax.ShapeDtypeStruct(query.shape, query.dtype),
        compiler_params=_compiler(),
        interpret=interpret,
    )(*arguments)
    heads_of_group = pl.BlockSpec((None, shape.row, shape.shared, shape.columns), lambda n, g, i: (n, 0, g, 0))
    block_of_group = pl.BlockSpec((None, shape.block, None, shape.columns), lambda n, g, i: (n, i, g, 0))
    numbers_of_group = pl.BlockSpec((None, shape.shared, shape.row), lambda n, g, i: (n, g, 0))
    d_key, d_value = pl.pallas_call(
        functools.partial(_key_gradient_kernel, shape=shape, causal=causal),
        grid=(shape.rows, shape.groups, shape.blocks),
        in_specs=[heads_of_group, *[block_of_group] * 2, _segments(shape), heads_of_group, *[numbers_of_group] * 2],
        out_specs=[block_of_group] * 2,
        out_shape=[jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (key, value)],
        compiler_params=_compiler(),
        interpret=interpret,
    )(*arguments)
    return d_query, d_key, d_value, np.zeros(segments.shape, jax.dtypes.float0)


attend_segments.defvjp(_forward, _backward)


def _forward_kernel(query, key, value, segments, mixed, lse, *, shape: _Shape, causal: bool) -> None:
    block = pl.program_id(2)
    q = _load_block(query, block, shape)

    def add(other: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        old, total, mixed = carry
        k, v = (_load_row_block(array, other, shape) for array in (key, value))
        seen = _seen(segments, block, other, shape, causal)
        scores = jnp.where(seen, _product(q, k, (1, 1)) / shape.width**0.5, MASKED)
        new = jnp.maximum(old, scores.max(axis=1))
        # If a token has seen no other yet, `new` is MASKED too and exp returns 1.
        weights = jnp.where(seen, jnp.exp(scores - new[:, None]), 0.0)
        decay = jnp.exp(old - new)
        mixed = mixed * decay[:, None] + _product(weights.astype(v.dtype), v, (1, 0))
        return new, total * decay + weights.sum(axis=1), mixed

    start = jnp.full(shape.block, MASKED, jnp.float32), jnp.zeros(shape.block, jnp.float32)
    zero_block = jnp.zeros((shape.block, shape.columns), jnp.float32)
    end = block + 1 if causal else shape.blocks
    maximum, total, summed = jax.lax.fori_loop(0, end, add, (*start, zero_block))
    total = jnp.where(total > 0, total, 1.0)
    _store(mixed, summed / total[:, None], block, shape)
    plgpu.store(lse, maximum + jnp.log(total), mask=_tokens(block, shape) < shape.tokens)


def _query_gradient_kernel(
    query, key, value, segments, d_mixed, lse, expected, d_query, *, shape: _Shape, causal: bool
) -> None:
    block = pl.program_id(2)
    q, d = (_load_block(array, block, shape) for array in (query, d_mixed))
    inside = _tokens(block, shape) < shape.tokens
    total, mean = (plgpu.load(array, mask=inside, other=0.0)[:, None] for array in (lse, expected))

    def add(other: Array, gradient: Array) -> Array:
        k, v = (_load_row_block(array, other, shape) for array in (key, value))
        seen = _seen(segments, block, other, shape, causal)
        weights = jnp.where(seen, jnp.exp(_product(q, k, (1, 1)) / shape.width**0.5 - total), 0.0)
        d_scores = weights * (_product(d, v, (1, 1)) - mean) / shape.width**0.5
        return gradient + _product(d_scores.astype(k.dtype), k, (1, 0))

    zero_block = jnp.zeros((shape.block, shape.columns), jnp.float32)
    end = block + 1 if causal else shape.blocks
    _store(d_query, jax.lax.fori_loop(0, end, add, zero_block), block, shape)


def _key_gradient_kernel(
    query, key, value, segments, d_mixed, lse, expected, d_key, d_value, *, shape: _Shape, causal: bool
) -> None:
    block = pl.program_id(2)
    k, v = (_load_block(array, block, shape) for array in (key, value))

    def add_head(head: Array, gradients: tuple[Array, Array]) -> tuple[Array, Array]:
        # The rows of these matrices are keys, and their columns are queries.
        def add(other: Array, gradients: tuple[Array, Array]) -> tuple[Array, Array]:
            q, d = (_load_row_block(array, other, shape, head=head) for array in (query, d_mixed))
            inside = _tokens(other, shape) < shape.tokens
            total, mean = (
                plgpu.load(array.at[head, _span(other, shape)], mask=inside, other=0.0)[None, :]
                for array in (lse, expected)
            )
            seen = _seen(segments, block, other, shape, causal, transposed=True)
            weights = jnp.where(seen, jnp.exp(_product(k, q, (1, 1)) / shape.width**0.5 - total), 0.0)
            d_scores = weights * (_product(v, d, (1, 1)) - mean) / shape.width**0.5
            return (
                gradients[0] + _product(d_scores.astype(q.dtype), q, (1, 0)),
                gradients[1] + _product(weights.astype(d.dtype), d, (1, 0)),
            )

        return jax.lax.fori_loop(block if causal else 0, shape.blocks, add, gradients)

    zero_block = jnp.zeros((shape.block, shape.columns), jnp.float32)
    d_k, d_v = jax.lax.fori_loop(0, shape.shared, add_head, (zero_block, zero_block))
    _store(d_key, d_k, block, shape)
    _store(d_value, d_v, block, shape)


def _seen(segments, block: Array, other: Array, shape: _Shape, causal: bool, *, transposed: bool = False) -> Array:
    """Returns the mask [tokens of block, tokens of other]: the first sees the second, or with `transposed` is seen."""
    rows, columns = _tokens(block, shape), _tokens(other, shape)
    row_segments = plgpu.load(segments.at[_span(block, shape)], mask=rows < shape.tokens, other=_OUTSIDE_BLOCK)
    column_segments = plgpu.load(segments.at[_span(other, shape)], mask=columns < shape.tokens, other=_OUTSIDE_ROW)
    seen = row_segments[:, None] == column_segments[None, :]
    if not causal:
        return seen
    rows, columns = rows[:, None], columns[None, :]
    return seen & (columns >= rows if transposed else columns <= rows)


def _span(block: Array, shape: _Shape) -> Any:
    return pl.ds(block * shape.block, shape.block)


def _tokens(block: Array, shape: _Shape) -> Array:
    return block * shape.block + jnp.arange(shape.block)


def _load_block(array, block: Array, shape: _Shape) -> Array:
    """Returns the block of `array` that the program owns, with 0 beyond the row and the width."""
    return plgpu.load(array, mask=_inside(block, shape), other=0.0)


def _load_row_block(array, block: Array, shape: _Shape, *, head: Array | None = None) -> Array:
    """Returns a block of the tokens of a row, of head `head` if the row has several heads, with 0 beyond the row."""
    part = array.at[_span(block, shape), :] if head is None else array.at[_span(block, shape), head, :]
    return plgpu.load(part, mask=_inside(block, shape), other=0.0)


def _store(array, values: Array, block: Array, shape: _Shape) -> None:
    plgpu.store(array, values.astype(array.dtype), mask=_inside(block, shape))


def _inside(block: Array, shape: _Shape) -> Array:
    return (_tokens(block, shape) < shape.tokens)[:, None] & (jnp.arange(shape.columns) < shape.width)[None, :]


def _product(left: Array, right: Array, contract: tuple[int, int]) -> Array:
    dimensions = (((contract[0],), (contract[1],)), ((), ()))
    return jax.lax.dot_general(
        left, right, dimensions, precision=precision(left.dtype), preferred_element_type=jnp.float32
    )


def _compiler() -> plgpu.CompilerParams:
    return plgpu.CompilerParams(num_warps=4, num_stages=2)


def _block_of_head(shape: _Shape) -> pl.BlockSpec:
    return pl.BlockSpec((None, shape.block, None, shape.columns), lambda n, h, i: (n, i, h, 0))


def _row_of_group(shape: _Shape) -> pl.BlockSpec:
    return pl.BlockSpec((None, shape.row, None, shape.columns), lambda n, h, i: (n, 0, h // shape.shared, 0))


def _segments(shape: _Shape) -> pl.BlockSpec:
    return pl.BlockSpec((None, shape.row), lambda n, h, i: (n, 0))


def _numbers_of_block(shape: _Shape) -> pl.BlockSpec:
    return pl.BlockSpec((None, None, shape.block), lambda n, h, i: (n, h, i))
