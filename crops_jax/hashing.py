"""Hash functions that decide identity (of documents and texts) and chance (which documents enter a batch).

Stored records, fingerprints and the order of training depend on every constant of this module.
"""

import hashlib
from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt32, UInt64


def splitmix64(values: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """64 well-mixed bits of each value, modulo 2^64."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def murmur3(*words: Int32[Array, "..."], seed: int) -> UInt32[Array, "..."]:
    """MurmurHash3_x86_32 (Appleby 2011) of one word or more, each 4 bytes, least first."""
    mixed = jnp.full(words[0].shape, seed, jnp.uint32)
    for word in words:
        word = _rotated(word.astype(jnp.uint32) * jnp.uint32(0xCC9E2D51), 15) * jnp.uint32(0x1B873593)
        mixed = _rotated(mixed ^ word, 13) * jnp.uint32(5) + jnp.uint32(0xE6546B64)
    return finalised(mixed ^ jnp.uint32(4 * len(words)))


def finalised(mixed: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """MurmurHash3's finaliser, a bijection: every bit in has to do with every bit out."""
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE35)
    return mixed ^ (mixed >> 16)


def _rotated(word: UInt32[Array, "..."], bits: int) -> UInt32[Array, "..."]:
    return (word << bits) | (word >> (32 - bits))


def document_id_words(doc_ids: Iterable[str]) -> Int32[np.ndarray, "documents 2"]:
    """64-bit BLAKE2b hashes of document ids as two 32-bit words, high word first.

    Two words because JAX without x64 truncates 64-bit integers in silence. The all-zero pair marks padding; no id
    maps to it (its hash would become 1).
    """
    digests = b"".join(hashlib.blake2b(doc_id.encode(), digest_size=8).digest() for doc_id in doc_ids)
    words = np.frombuffer(digests, dtype=">i4").astype(np.int32).reshape(-1, 2)
    zero = ~words.any(axis=1)
    if zero.any():
        words[zero, 1] = 1
    return words


def id_hashes(ids: Iterable[str]) -> UInt64[np.ndarray, "ids"]:
    """64 bits of each id, for chance."""
    words = document_id_words(ids).view(np.uint32).astype(np.uint64)
    return words[:, 0] << np.uint64(32) | words[:, 1]
