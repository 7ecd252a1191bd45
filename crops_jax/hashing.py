"""Hash functions of the host. They decide the identity of documents, texts and queries, the random choice of the
documents that enter a batch, and the slices of queries that are used for training. Those of compiled programs are in
crops_jax.devices.hashing.

Stored records, fingerprints, splits and the order of training depend on every constant of this module.
"""

import hashlib
from collections.abc import Iterable
from typing import Literal

import numpy as np
from jaxtyping import Int32, UInt64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(values: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """Returns SplitMix64 (Steele, Lea, Flood 2014) of each value: 64 well-mixed bits, modulo 2^64.

    The result is the same on every platform.
    """
    with np.errstate(over="ignore"):
        return _mixed(values + _GOLDEN)


def seed_hash(seed: int) -> UInt64[np.ndarray, ""]:
    """Returns SplitMix64 of a seed, which can have any sign and size and is reduced modulo 2^64."""
    return splitmix64(np.array(seed % (1 << 64), np.uint64))


def pair_hashes(
    queries: UInt64[np.ndarray, "pairs"], documents: UInt64[np.ndarray, "pairs"], *, key: np.uint64
) -> UInt64[np.ndarray, "pairs"]:
    """Returns 64 pseudo-random bits for each pair of a query and a document, computed from the hashes of both.

    The function is SplitMix64 without its addition. It must not change, because the choice of the documents of a query
    in stored records depends on it.
    """
    with np.errstate(over="ignore"):
        return _mixed(documents ^ (queries * _GOLDEN) ^ key)


def _mixed(values: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """Returns the values after the finaliser of SplitMix64, which is a bijection."""
    with np.errstate(over="ignore"):
        mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def document_id_words(doc_ids: Iterable[str]) -> Int32[np.ndarray, "documents 2"]:
    """Returns 64-bit BLAKE2b hashes of document ids as two 32-bit words, high word first.

    The hashes are two words because JAX without x64 truncates 64-bit integers without a warning. Two zero words mark
    padding. No id has this hash: a hash of 0 is replaced by 1.
    """
    digests = b"".join(hashlib.blake2b(doc_id.encode(), digest_size=8).digest() for doc_id in doc_ids)
    words = np.frombuffer(digests, dtype=">i4").astype(np.int32).reshape(-1, 2)
    zero = ~words.any(axis=1)
    if zero.any():
        words[zero, 1] = 1
    return words


def id_hashes(ids: Iterable[str]) -> UInt64[np.ndarray, "ids"]:
    """Returns 64 bits for each id, on which random choices are based."""
    return joined(document_id_words(ids))


def joined(words: Int32[np.ndarray, "ids 2"]) -> UInt64[np.ndarray, "ids"]:
    """Returns the 64-bit hashes that `document_id_words` has split into two words."""
    halves = words.view(np.uint32).astype(np.uint64)
    return halves[:, 0] << np.uint64(32) | halves[:, 1]


class DocumentRows:
    """Finds the rows of documents by the 64-bit hashes of their ids."""

    def __init__(self, hashes: UInt64[np.ndarray, "documents"]):
        """hashes: the hashes of the documents' ids, in the order of their rows."""
        self._order = np.argsort(hashes, kind="stable").astype(np.int32)
        self._hashes = hashes[self._order]

    def of(self, hashes: UInt64[np.ndarray, "..."]) -> Int32[np.ndarray, "..."]:
        """Returns the row of each hash; -1 for a hash of no document."""
        place = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return np.where(self._hashes[place] == hashes, self._order[place], -1).astype(np.int32)


def sha256_hashes(texts: Iterable[str]) -> UInt64[np.ndarray, "texts"]:
    """Returns the first 64 bits of the SHA-256 of each text."""
    digests = b"".join(hashlib.sha256(text.encode()).digest()[:8] for text in texts)
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def sha256_bucket(text: str, *, buckets: int, digits: tuple[int, int]) -> int:
    """Returns the bucket of a text, a number from 0 to buckets - 1 that does not depend on other texts.

    Args:
      text: the text.
      buckets: the number of buckets.
      digits: the start and the exclusive end of a range of the hexadecimal digits of the text's SHA-256. The bucket is
        the number that these digits form, modulo `buckets`. Buckets from disjoint ranges of digits are independent.
    """
    return int(hashlib.sha256(text.encode()).hexdigest()[slice(*digits)], 16) % buckets


def split_by_hash(query: str) -> Literal["train", "dev", "test"]:
    """Returns the split of a normalised query.

    The first 32 bits of its SHA-256 choose one of ten buckets: buckets 0 to 7 are train, 8 is dev, 9 is test.
    """
    bucket = sha256_bucket(query, buckets=10, digits=(0, 8))
    if bucket < 8:
        return "train"
    return "dev" if bucket == 8 else "test"
