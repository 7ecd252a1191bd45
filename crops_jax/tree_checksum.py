"""Checksums of arrays, the same for any layout over devices, so that a checkpoint knows what it should hold.

Orbax's array files carry none: flipped bits are restored as if nothing were wrong.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

_KEY_SEPARATOR = "/"


def tree_checksums(tree: Any) -> dict[str, int]:
    """Path of each array in a tree of dictionaries, lists and tuples -> its checksum.

    The checksum is sum of (2 i + 1) x_i modulo 2^32 over the array's 32-bit words x_i (shorter numbers one a word), in
    row-major order. Odd factors: a change of any one word is always seen. Integer sums wrap and are exact in any order,
    so meshes and machines agree. Computed where the arrays are, in one pass.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    sums = jax.device_get([_checksum(jnp.asarray(leaf)) for _, leaf in leaves])
    return {_name(path): int(total) for (path, _), total in zip(leaves, sums, strict=True)}


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


def _name(path: tuple) -> str:
    """Keys of dictionaries, places in lists and names of fields alike, without the quotes that tell them apart."""
    return jax.tree_util.keystr(path, simple=True, separator=_KEY_SEPARATOR)
