"""Checksums of a checkpoint's arrays and of the samples of a step, which are the same for any layout over devices.

The array files of Orbax have no checksums, so Orbax restores flipped bits without an error. When two runs have the same
checksum of samples, they saw the same samples in the same order.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from crops_jax.devices.hashing import finalised
from crops_jax.devices.sharding import path_name

CHECKSUM_MODULUS = 1 << 32
"""The number below which every checksum is, of arrays and of samples."""


def tree_checksums(tree: Any) -> dict[str, int]:
    """Returns the checksum of each array in a tree by the path of the array (`path_name`).

    The checksum is the sum of (2 i + 1) x_i modulo 2^32 over the array's 32-bit words x_i in row-major order; each
    shorter number is one word. The factors are odd, so that a change of any single word changes the checksum. Integer
    sums wrap and are exact in any order, so that all meshes and machines agree. The checksum is computed in one pass on
    the devices that hold the array, and by NumPy for an array on the host, for which no program has to be compiled.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    sums = jax.device_get(
        [_host_checksum(leaf) if isinstance(leaf, np.ndarray) else _checksum(jnp.asarray(leaf)) for _, leaf in leaves]
    )
    return {path_name(path): int(total) for (path, _), total in zip(leaves, sums, strict=True)}


_BLOCK_WORDS = 1 << 20
"""The number of words that NumPy sums up at once, so that its intermediate arrays stay small."""


def _host_checksum(array: np.ndarray) -> int:
    words = np.ascontiguousarray(array).reshape(-1).view(f"u{array.dtype.itemsize}")
    factors = 2 * np.arange(min(len(words), _BLOCK_WORDS), dtype=np.uint32) + 1
    total = 0
    for start in range(0, len(words), _BLOCK_WORDS):
        block = words[start : start + _BLOCK_WORDS].astype(np.uint32)
        shifted = factors[: len(block)] + np.uint32(2 * start % CHECKSUM_MODULUS)
        total += int((block * shifted).sum(dtype=np.uint32))
    return total % CHECKSUM_MODULUS


@functools.partial(jax.jit, inline=False)
def _checksum(array: jax.Array) -> jax.Array:
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
    words = array.astype(width) if array.dtype == bool else jax.lax.bitcast_convert_type(array, width)
    index = jnp.zeros(array.shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(array.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * jnp.uint32(stride % CHECKSUM_MODULUS)
        stride *= array.shape[axis]
    return (words.astype(jnp.uint32) * (2 * index + 1)).sum(dtype=jnp.uint32)


SAMPLES_FIELD = "samples_checksum"
"""The field of metrics.jsonl that holds the sum over the steps since the previous line, modulo CHECKSUM_MODULUS."""


def batch_checksum(batch: Any, step: Int32[Array, ""]) -> Int32[Array, ""]:
    """Returns the checksum of the samples of a step, over the words x_i of a batch's queries and document ids.

    It is (2 step + 1) * sum of (2 i + 1) F(x_i) modulo 2^32. F is the finaliser of MurmurHash3, which spreads small
    numbers such as tokens over all bits. The index i counts the words of query_tokens [B, tokens] and then those of
    document_ids [N, 2], row by row in the order of the global batch. The checksum therefore depends on the samples,
    their positions and the step, but not on the number of processes or the mesh. The step itself computes it from the
    arrays on the devices.

    Args:
      batch: a crops_jax.input_pipeline.batch_reader.Batch over the whole mesh.
      step: the number of the step, counted from 0.
    """
    total, first = jnp.uint32(0), 0
    for array in (batch.query_tokens, batch.document_ids):
        indices = jnp.arange(first, first + array.size, dtype=jnp.uint32).reshape(array.shape)
        total += ((2 * indices + 1) * finalised(array.astype(jnp.uint32))).sum(dtype=jnp.uint32)
        first += array.size
    return (total * (2 * step.astype(jnp.uint32) + 1)).astype(jnp.int32)
