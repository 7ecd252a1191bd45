"""Hash functions of compiled programs, in JAX. They decide the identity of texts in a batch, the rows of hashed
embedding tables, and the checksums of batches.

Trained weights and the checksums of runs depend on every constant of this module.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32, UInt32


def murmur3(*words: Int32[Array, "..."], seed: int) -> UInt32[Array, "..."]:
    """Returns MurmurHash3_x86_32 (Appleby 2011) of one or more words; a word is 4 bytes in little-endian order."""
    mixed = jnp.full(words[0].shape, seed, jnp.uint32)
    for word in words:
        word = _rotated(word.astype(jnp.uint32) * jnp.uint32(0xCC9E2D51), 15) * jnp.uint32(0x1B873593)
        mixed = _rotated(mixed ^ word, 13) * jnp.uint32(5) + jnp.uint32(0xE6546B64)
    return finalised(mixed ^ jnp.uint32(4 * len(words)))


def finalised(mixed: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """Returns the values after MurmurHash3's finaliser, a bijection: every output bit depends on every input bit."""
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE35)
    return mixed ^ (mixed >> 16)


def token_words(tokens: Int32[Array, "texts tokens"]) -> Int32[Array, "texts 2"]:
    """Returns a 64-bit hash of each row of tokens, padding included, as two 32-bit words, the format of document ids.

    Each word is a polynomial modulo 2^32 with an odd base, mixed by lowbias32 (Wellons, hash-prospector, 2018).
    """
    words = [_polynomial(tokens, base) for base in (0x9E3779B1, 0x85EBCA77)]
    return jax.lax.bitcast_convert_type(jnp.stack(words, axis=1), jnp.int32)


def _polynomial(tokens: Int32[Array, "texts tokens"], base: int) -> UInt32[Array, "texts"]:
    powers = jnp.asarray([pow(base, i + 1, 1 << 32) for i in range(tokens.shape[1])], jnp.uint32)
    value = (tokens.astype(jnp.uint32) * powers[None, :]).sum(axis=1, dtype=jnp.uint32)
    value = (value ^ (value >> 16)) * jnp.uint32(0x7FEB352D)
    value = (value ^ (value >> 15)) * jnp.uint32(0x846CA68B)
    return value ^ (value >> 16)


def _rotated(word: UInt32[Array, "..."], bits: int) -> UInt32[Array, "..."]:
    return (word << bits) | (word >> (32 - bits))
