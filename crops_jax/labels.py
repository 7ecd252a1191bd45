"""Label levels of HLA and the label matrix of a batch, never written out.

Levels: CroPS (arXiv 2511.15443), hierarchical label assignment.
"""

import enum
import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int32

IGNORE = -1
"""Level of a pair that is neither anchor nor negative of anything."""


class Level(enum.IntEnum):
    """How strongly a document answers a query, from the place where the log met it."""

    IN_BATCH_NEGATIVE = 0
    FILTERED_BEFORE_RANKING = 1
    RANKED_NOT_SHOWN = 2
    SHOWN_NOT_CLICKED = 3
    POSITIVE = 4
    QUERY_LEVEL_POSITIVE = 5


class SparseLabels(NamedTuple):
    """Labels of [queries, documents] by their few entries other than level 0.

    doc_index: the column of each entry; -1 is padding. A column occurs at most once in a row.
    level: its level, 1 to 5; -1 means "ignore this pair". Every column not named is level 0.
    """

    doc_index: Int32[jax.Array, "queries k"]
    level: Int32[jax.Array, "queries k"]


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
