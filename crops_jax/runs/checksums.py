"""Checksums that are the same for any layout over devices: of a checkpoint's arrays, and of the samples of a step.

Orbax's array files carry none: flipped bits are restored as if nothing were wrong. By the checksum of their samples two
runs show that they saw the same ones in the same order.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32

from crops_jax.devices.sharding import path_name
from crops_jax.hashing import finalised


def tree_checksums(tree: Any) -> dict[str, int]:
    """Path of each array in a tree (`path_name`) -> its checksum.

    The checksum is sum of (2 i + 1) x_i modulo 2^32 over the array's 32-bit words x_i (shorter numbers one a word), in
    row-major order. Odd factors: a change of any one word is always seen. Integer sums wrap and are exact in any order,
    so meshes and machines agree. Computed where the arrays are, in one pass.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    sums = jax.device_get([_checksum(jnp.asarray(leaf)) for _, leaf in leaves])
    return {path_name(path): int(total) for (path, _), total in zip(leaves, sums, strict=True)}


@functools.partial(jax.jit, inline=False)
def _checksum(array: jax.Array) -> jax.Array:
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
    words = array.astype(width) if array.dtype == bool else jax.lax.bitcast_convert_type(array, width)
    place = jnp.zeros(array.shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(array.ndim)):
        place += jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * jnp.uint32(stride % (1 << 32))
        stride *= array.shape[axis]
    return (words.astype(jnp.uint32) * (2 * place + 1)).sum(dtype=jnp.uint32)


SAMPLES_FIELD = "samples_checksum"
"""The field of metrics.jsonl that holds the sum over the steps since the line before, modulo SAMPLES_MODULUS."""

SAMPLES_MODULUS = 1 << 32


def batch_checksum(batch: Any, step: Int32[Array, ""]) -> Int32[Array, ""]:
    """(2 step + 1) * sum of (2 i + 1) F(x_i) modulo 2^32, over the words x_i of a batch's queries and document ids.

    F is the finaliser of MurmurHash3, which spreads small numbers such as tokens over all bits. Place i counts the
    words of query_tokens [B, tokens] and then those of document_ids [N, 2], row by row in the order of the global
    batch. So it tells which samples stood where and in which step, and neither the number of processes nor the mesh
    enters it. It is computed from what lies on the devices, in the step itself.

    Args:
      batch: a crops_jax.input_pipeline.batch_reader.Batch over the whole mesh.
      step: counted from 0.
    """
    total, first = jnp.uint32(0), 0
    for array in (batch.query_tokens, batch.document_ids):
        places = jnp.arange(first, first + array.size, dtype=jnp.uint32).reshape(array.shape)
        total += ((2 * places + 1) * finalised(array.astype(jnp.uint32))).sum(dtype=jnp.uint32)
        first += array.size
    return (total * (2 * step.astype(jnp.uint32) + 1)).astype(jnp.int32)
