"""The similarity of two queries, which decides whether one reformulates the other (CroPS, query-level positives)."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float32

from crops_jax.text.forms import distinct, trigrams

_PAIRS_AT_ONCE = 200_000


class Similarity(Protocol):
    """A model of the similarity of normalised queries."""

    def score(self, left: Sequence[str], right: Sequence[str]) -> Float32[np.ndarray, "pairs"]:
        """Returns the similarity of left[i] and right[i]; the maximum, of equal queries, is 1."""
        ...


class TrigramSimilarity:
    """The cosine of the counts of character trigrams. It is used if no encoder is named.

    A blank is added before and after each query, so that the borders of words count, and a query of one character has a
    trigram too.
    """

    def score(self, left: Sequence[str], right: Sequence[str]) -> Float32[np.ndarray, "pairs"]:
        """Returns the cosine of left[i] and right[i] in [0, 1]; it is 0 if one of them is empty."""
        import scipy.sparse  # here, because it takes a third of a second, also of programs that compare no queries

        texts, left_index, right_index = distinct(left, right)
        row, code = trigrams(texts)
        column = np.unique(code, return_inverse=True)[1]
        ones = np.ones(len(row), np.float64)
        counts = scipy.sparse.csr_matrix((ones, (row, column)), shape=(len(texts), int(column.max(initial=0)) + 1))
        norms = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
        result = np.empty(len(left_index), np.float32)
        for start in range(0, len(result), _PAIRS_AT_ONCE):
            a, b = (index[start : start + _PAIRS_AT_ONCE] for index in (left_index, right_index))
            dots = np.asarray(counts[a].multiply(counts[b]).sum(axis=1)).ravel()
            result[start : start + len(a)] = dots / np.maximum(norms[a] * norms[b], 1e-12)
        return result


class EncoderSimilarity:
    """The cosine of the embeddings that an encoder's query tower returns."""

    def __init__(self, encoder):
        self._encoder = encoder

    def score(self, left: Sequence[str], right: Sequence[str]) -> Float32[np.ndarray, "pairs"]:
        """Returns the cosine of left[i] and right[i] in [-1, 1]; each distinct query is encoded once."""
        texts, left_index, right_index = distinct(left, right)
        if not texts:
            return np.zeros(0, np.float32)
        embeddings = self._encoder.encode(texts, tower="query", progress=True)
        embeddings = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        result = np.empty(len(left_index), np.float32)
        for start in range(0, len(result), _PAIRS_AT_ONCE):
            a, b = (index[start : start + _PAIRS_AT_ONCE] for index in (left_index, right_index))
            result[start : start + len(a)] = np.einsum("pd,pd->p", embeddings[a], embeddings[b])
        return result


def open_similarity(encoder: str | None = None) -> Similarity:
    """Returns the similarity by an encoder (a RUN or a model's folder), or by character trigrams if it is None."""
    if encoder is None:
        return TrigramSimilarity()
    from crops_jax.runs.encoder import open_encoder

    return EncoderSimilarity(open_encoder(encoder))
