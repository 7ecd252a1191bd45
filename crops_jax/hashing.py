"""Hash functions that decide identity (of documents, texts and queries), chance (which documents enter a batch) and
slices of queries (which of them train).

Stored records, fingerprints, splits and the order of training depend on every constant of this module.
"""

import hashlib
from collections.abc import Iterable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt32, UInt64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(values: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """SplitMix64 (Steele, Lea, Flood 2014): 64 well-mixed bits of each value, modulo 2^64, the same everywhere."""
    with np.errstate(over="ignore"):
        return _mixed(values + _GOLDEN)


def seed_hash(seed: int) -> UInt64[np.ndarray, ""]:
    """SplitMix64 of a seed of any sign and size, modulo 2^64."""
    return splitmix64(np.array(seed % (1 << 64), np.uint64))


def pair_hashes(
    queries: UInt64[np.ndarray, "pairs"], documents: UInt64[np.ndarray, "pairs"], *, key: np.uint64
) -> UInt64[np.ndarray, "pairs"]:
    """64 bits of each pair of a query and a document, for chance, from the hashes of both.

    They are SplitMix64's without its addition, and which documents of a query stand in stored records depends on that.
    """
    with np.errstate(over="ignore"):
        return _mixed(documents ^ (queries * _GOLDEN) ^ key)


def _mixed(values: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """SplitMix64's finaliser, a bijection."""
    with np.errstate(over="ignore"):
        mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
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


def token_words(tokens: Int32[Array, "texts tokens"]) -> Int32[Array, "texts 2"]:
    """64-bit hashes of rows of tokens, padding included, as two 32-bit words, as for document ids.

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
    return joined(document_id_words(ids))


def joined(words: Int32[np.ndarray, "ids 2"]) -> UInt64[np.ndarray, "ids"]:
    """The 64 bits that `document_id_words` has cut into two words."""
    halves = words.view(np.uint32).astype(np.uint64)
    return halves[:, 0] << np.uint64(32) | halves[:, 1]


def sha256_hashes(texts: Iterable[str]) -> UInt64[np.ndarray, "texts"]:
    """The first 64 bits of the SHA-256 of each text."""
    digests = b"".join(hashlib.sha256(text.encode()).digest()[:8] for text in texts)
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def sha256_bucket(text: str, *, buckets: int, digits: tuple[int, int]) -> int:
    """One of `buckets`, numbered from 0, that a text falls into, whatever other texts there are.

    Args:
      digits: the first and the end of those hexadecimal digits of the text's SHA-256 that decide, as a number modulo
        `buckets`. Slices by digits apart have nothing to do with each other.
    """
    return int(hashlib.sha256(text.encode()).hexdigest()[slice(*digits)], 16) % buckets


def split_by_hash(query: str) -> Literal["train", "dev", "test"]:
    """The split of a normalised query: bucket 0 to 7, 8 or 9 of ten by the first 32 bits of its SHA-256."""
    bucket = sha256_bucket(query, buckets=10, digits=(0, 8))
    if bucket < 8:
        return "train"
    return "dev" if bucket == 8 else "test"
