"""A checksum of the samples of a step, by which two runs show that they saw the same ones in the same order."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int32, UInt32

FIELD = "samples_checksum"
"""Of metrics.jsonl: the sum over the steps since the line before, modulo MODULUS."""

MODULUS = 1 << 32


def batch_checksum(batch: Any, step: Int32[Array, ""]) -> Int32[Array, ""]:
    """(2 step + 1) * sum of (2 i + 1) mix(x_i) modulo 2^32, over the words x_i of a batch's queries and document ids.

    Place i counts the words of query_tokens [B, tokens] and then those of document_ids [N, 2], row by row in the order
    of the global batch. So it tells which samples stood where and in which step, and neither the number of processes
    nor the mesh enters it. It is computed from what lies on the devices, in the step itself.

    Args:
      batch: a crops_jax.input_pipeline.batch_reader.Batch over the whole mesh.
      step: counted from 0.
    """
    total, first = jnp.uint32(0), 0
    for array in (batch.query_tokens, batch.document_ids):
        places = jnp.arange(first, first + array.size, dtype=jnp.uint32).reshape(array.shape)
        total += ((2 * places + 1) * _mixed(array.astype(jnp.uint32))).sum(dtype=jnp.uint32)
        first += array.size
    return (total * (2 * step.astype(jnp.uint32) + 1)).astype(jnp.int32)


def _mixed(word: UInt32[Array, "rows columns"]) -> UInt32[Array, "rows columns"]:
    """The finaliser of MurmurHash3: small numbers such as tokens spread over all bits."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)
