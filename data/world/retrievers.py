"""The retrievers of the recall stage of the simulated engine."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Float, Int

from crops_jax.text import words

_K1 = 0.9
_B = 0.4
# A latent space uses only the words that occur in the largest numbers of documents, because the cost of the
# decomposition grows with the square of the number of words.
_MAX_LATENT_WORDS = 4096
# Scores are compared after rounding, so that a different order of float additions rarely changes the results.
_SCORE_STEPS = 10_000
# A search for the best of many columns looks at the maximum of each block of columns first.
_COLUMNS_PER_BLOCK = 64
_MIN_COLUMNS_TO_FILTER = 8192


class Stock(NamedTuple):
    """The part of the catalogue that the engine knows at the start of a day."""

    published: int
    """The number of published documents; they are the first ones, because documents are sorted by publication."""
    popularity: Float[np.ndarray, "documents"]
    """The number of clicks on each document so far."""


class Retriever(Protocol):
    """A function from queries to documents."""

    def __call__(self, queries: Sequence[str], stock: Stock, *, k: int) -> Int[np.ndarray, "queries k"]:
        """Returns the k published documents with the highest scores for each query, best first; -1 is padding."""
        ...


class Terms:
    """The number of occurrences of each word in each text. `count` counts these known words in other texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        tokens = [words(text) for text in texts]
        self._column: dict[str, int] = {}
        for document in tokens:
            for token in document:
                self._column.setdefault(token, len(self._column))
        self.counts = self._matrix(tokens)

    def count(self, texts: Sequence[str]) -> scipy.sparse.csr_matrix:
        """Returns the number of occurrences of each known word in each text, [texts, words]."""
        return self._matrix([[token for token in words(text) if token in self._column] for text in texts])

    def _matrix(self, tokens: list[list[str]]) -> scipy.sparse.csr_matrix:
        row = np.repeat(np.arange(len(tokens)), [len(text) for text in tokens])
        column = np.array([self._column[token] for text in tokens for token in text], dtype=np.int64)
        shape = (len(tokens), max(len(self._column), 1))
        return scipy.sparse.csr_matrix((np.ones(len(column)), (row, column)), shape=shape)


class Bm25:
    """Lexical scores of the published documents by the BM25 of Lucene with k1 = .9, b = .4.

    The score is the sum over the words of the query of
    log(1 + (N - n + .5) / (n + .5)) f / (f + k1 (1 - b + b length / mean length)), where N is the number of documents,
    n the number of documents that contain the word, and f the number of its occurrences in the scored document.

    The class computes what crops_jax.retrieval.bm25 computes without stop words and stems. It does not use that module,
    because the module imports bm25s, and the import of bm25s starts the backend of JAX: a simulation would occupy an
    accelerator that it does not use.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._index: tuple[int, scipy.sparse.csr_matrix] | None = None
        self._last: tuple[tuple[tuple[str, ...], int], scipy.sparse.csr_matrix] | None = None

    def scores(self, queries: Sequence[str], *, published: int) -> Float[np.ndarray, "queries published"]:
        """Returns the score of each of the first `published` documents for each query."""
        return self.matches(queries, published=published).toarray()

    def matches(self, queries: Sequence[str], *, published: int) -> scipy.sparse.csr_matrix:
        """Returns the same scores as a sparse matrix: only documents that share a word with the query have one."""
        key = (tuple(queries), published)
        if self._last is None or self._last[0] != key:
            self._last = (key, scipy.sparse.csr_matrix(self._terms.count(queries) @ self._build_index(published).T))
        return self._last[1]

    def relative_scores(
        self, queries: Sequence[str], documents: Int[np.ndarray, "queries k"], *, published: int
    ) -> Float[np.ndarray, "queries k"]:
        """Returns the score of each document divided by the maximum score for its query, in [0, 1]."""
        matches = self.matches(queries, published=published)
        most = matches.max(axis=1).toarray() if published else np.zeros((len(queries), 1))
        return values_at(matches, documents) / np.maximum(most, 1e-6)

    def __call__(self, queries: Sequence[str], stock: Stock, *, k: int) -> Int[np.ndarray, "queries k"]:
        return top_k_of_matches(self.matches(queries, published=stock.published), k)

    def _build_index(self, published: int) -> scipy.sparse.csr_matrix:
        """Returns the weights of the first `published` documents, and keeps them for the next call."""
        if self._index is None or self._index[0] != published:
            self._index = (published, _bm25_weights(self._terms.counts[:published]))
        return self._index[1]


class LatentSpace:
    """Latent semantic analysis: vectors from a truncated SVD of TF-IDF, fitted on the first `fitted_on` documents.

    Synonyms get similar vectors, because they occur in texts with the same other words.
    """

    def __init__(self, terms: Terms, *, dimensions: int, fitted_on: int) -> None:
        self._terms = terms
        self._last: tuple[tuple[str, ...], np.ndarray] | None = None
        counts = terms.counts[:fitted_on]
        document_counts = counts.getnnz(axis=0)
        self._inverse_frequency = np.log((1 + fitted_on) / (1 + document_counts)) + 1
        self._kept = np.sort(np.argsort(-document_counts, kind="stable")[:_MAX_LATENT_WORDS])
        weights = self._weigh(counts)
        self._basis = _leading_eigenvectors(weights.T @ weights, dimensions)
        self.documents = self._project(terms.counts)

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "texts dimensions"]:
        """Returns the unit vector of each text; a text without a known word has the zero vector."""
        key = tuple(texts)
        if self._last is None or self._last[0] != key:
            self._last = (key, self._project(self._terms.count(texts)))
        return self._last[1]

    def _project(self, counts: scipy.sparse.csr_matrix) -> np.ndarray:
        """Returns the unit vectors of texts with these word counts."""
        vectors = self._weigh(counts) @ self._basis
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _weigh(self, counts: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
        """Returns the TF-IDF weights (1 + log count) * idf of the words of the latent space."""
        weights = counts.copy()
        weights.data = 1 + np.log(weights.data)
        return scipy.sparse.csr_matrix(weights.multiply(self._inverse_frequency))[:, self._kept]


class LatentRetriever:
    """The present retriever of the engine: a coarse latent space with a preference for popular documents.

    The score is cosine + popularity_bias * log(1 + clicks) / log(1 + maximum clicks).
    """

    def __init__(self, space: LatentSpace, *, popularity_bias: float) -> None:
        self._space = space
        self._popularity_bias = popularity_bias
        # One memory for the scores of all calls: fresh memory for each would cost more than the products.
        self._scores = np.empty((0, 0))

    def __call__(self, queries: Sequence[str], stock: Stock, *, k: int) -> Int[np.ndarray, "queries k"]:
        if self._scores.shape[1] != stock.published or len(self._scores) < len(queries):
            self._scores = np.empty((len(queries), stock.published))
        scores = self._scores[: len(queries)]
        np.matmul(self._space.encode(queries), self._space.documents[: stock.published].T, out=scores)
        scores += self._popularity_bias * relative_popularity(stock.popularity)[: stock.published]
        return top_k(scores, k)


def relative_popularity(popularity: Float[np.ndarray, "documents"]) -> Float[np.ndarray, "documents"]:
    """Returns log(1 + clicks) of each document, divided by its maximum so that it is in [0, 1]."""
    return np.log1p(popularity) / max(np.log1p(popularity.max()), 1e-12)


def top_k(scores: Float[np.ndarray, "queries documents"], k: int) -> Int[np.ndarray, "queries k"]:
    """Returns the columns of the k highest scores of each row, best first; -1 is padding.

    A column whose score is -inf is never returned. Scores are compared after rounding to four decimals; of two equal
    scores, the one in the earlier column comes first.
    """
    count = scores.shape[1]
    if count >= _MIN_COLUMNS_TO_FILTER and 0 < k <= count // _COLUMNS_PER_BLOCK:
        likely = _likely_columns(scores, k)
        if likely is not None:
            return _top_k_of_columns(scores, likely, k)
    valid = np.isfinite(scores)
    # All keys of a row differ, so the partition is unique.
    keys = np.where(valid, _rank_keys(np.where(valid, scores, 0), np.arange(count), count), np.iinfo(np.int64).max)
    if k < count:
        columns = np.argpartition(keys, k - 1, axis=1)[:, :k] if k else np.empty((len(scores), 0), np.int64)
    else:
        columns = np.tile(np.arange(count), (len(scores), 1))
    columns = np.take_along_axis(columns, np.argsort(np.take_along_axis(keys, columns, 1), axis=1, kind="stable"), 1)
    columns = np.where(np.take_along_axis(valid, columns, axis=1), columns, -1)
    return np.pad(columns, ((0, 0), (0, max(k - count, 0))), constant_values=-1).astype(np.int32)


def top_k_of_matches(matches: scipy.sparse.csr_matrix, k: int) -> Int[np.ndarray, "queries k"]:
    """Returns what `top_k` returns for a sparse matrix of scores [queries, documents], of the scores above 0."""
    rows, count = matches.get_shape()
    best = np.full((rows, k), -1, np.int32)
    for row, (start, end) in enumerate(zip(matches.indptr[:-1], matches.indptr[1:], strict=True)):
        scores, documents = matches.data[start:end], matches.indices[start:end].astype(np.int64)
        keys = _rank_keys(scores, documents, count)[scores > 0]
        keys = np.sort(np.partition(keys, k - 1)[:k] if 0 < k < len(keys) else keys)[:k]
        best[row, : len(keys)] = keys % count
    return best


def values_at(matches: scipy.sparse.csr_matrix, columns: Int[np.ndarray, "rows k"]) -> Float[np.ndarray, "rows k"]:
    """Returns the values of a sparse matrix at some columns of each row, 0 where it has none."""
    values, found = np.zeros(matches.get_shape()[1]), np.zeros(columns.shape)
    for row, (start, end) in enumerate(zip(matches.indptr[:-1], matches.indptr[1:], strict=True)):
        there = matches.indices[start:end]
        values[there] = matches.data[start:end]
        found[row] = values[columns[row]]
        values[there] = 0
    return found


def _rank_keys(scores: np.ndarray, columns: np.ndarray, count: int) -> np.ndarray:
    """Returns integers that are lower for higher rounded scores and, of equal ones, for earlier columns.

    A key modulo `count` is its column.
    """
    return columns - np.rint(scores * _SCORE_STEPS).astype(np.int64) * count


def _likely_columns(scores: np.ndarray, k: int) -> np.ndarray | None:
    """Returns the columns among which the k best of each row are, in ascending order; -1 is padding.

    Of the maxima of blocks of columns, the k-th highest is a score that k columns reach. No column that is lower by
    more than a rounding step can be among the k best. Returns None where fewer than k blocks have a score.
    """
    whole = scores.shape[1] // _COLUMNS_PER_BLOCK * _COLUMNS_PER_BLOCK
    # A block is not a run of neighbours, but every so many columns: rows of blocks are then compared as a whole.
    maxima = scores[:, :whole].reshape(len(scores), _COLUMNS_PER_BLOCK, -1).max(axis=1)
    least = np.partition(maxima, -k, axis=1)[:, -k] - 2 / _SCORE_STEPS
    if not np.isfinite(least).all():
        return None
    row, column = np.nonzero(scores >= least[:, None])
    lengths = np.bincount(row, minlength=len(scores))
    likely = np.full((len(scores), lengths.max(initial=0)), -1)
    likely[row, np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)] = column
    return likely


def _top_k_of_columns(scores: np.ndarray, columns: np.ndarray, k: int) -> np.ndarray:
    """Returns the k best of some columns of each row, best first; every row has at least k."""
    count = scores.shape[1]
    there = np.take_along_axis(scores, np.maximum(columns, 0), axis=1)
    keys = np.where(columns >= 0, _rank_keys(np.where(columns >= 0, there, 0), columns, count), np.iinfo(np.int64).max)
    return (np.sort(np.partition(keys, k - 1, axis=1)[:, :k], axis=1) % count).astype(np.int32)


def _leading_eigenvectors(gram: scipy.sparse.csr_matrix, count: int) -> np.ndarray:
    """Returns the `count` eigenvectors with the largest eigenvalues as columns."""
    size = gram.get_shape()[0]
    if count >= size // 2:
        return np.linalg.eigh(gram.toarray())[1][:, -count:]
    # Without v0, ARPACK starts from a random vector, and the result is not reproducible.
    return scipy.sparse.linalg.eigsh(gram, k=count, v0=np.ones(size))[1]


def _bm25_weights(counts: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """Returns the summand of the BM25 score for each document and word."""
    documents = counts.get_shape()[0]
    document_counts = counts.getnnz(axis=0)
    rarity = np.log(1 + (documents - document_counts + 0.5) / (document_counts + 0.5))
    length = np.asarray(counts.sum(axis=1)).ravel()
    damping = _K1 * (1 - _B + _B * length / max(length.mean(), 1e-12))
    weights = counts.copy()
    weights.data = counts.data / (counts.data + np.repeat(damping, np.diff(counts.indptr))) * rarity[counts.indices]
    return weights
