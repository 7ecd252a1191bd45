"""Recall: from queries to documents. A trained encoder takes the place of the present retriever in the closed loop."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Float, Int

from crops_jax.text import words

_K1 = 0.9
_B = 0.4
# A latent space is made of the words that most documents have: the decomposition grows with their square.
_MOST_LATENT_WORDS = 4096
# Scores are compared after rounding, so that another order of float additions seldom changes what is found.
_SCORE_STEPS = 10_000


class Stock(NamedTuple):
    """The part of the catalogue that the engine knows on the morning of a day."""

    published: int
    """The first so many documents exist (documents are sorted by publication)."""
    popularity: Float[np.ndarray, "documents"]
    """Clicks that each has got so far."""


class Retriever(Protocol):
    def __call__(self, queries: Sequence[str], stock: Stock, *, k: int) -> Int[np.ndarray, "queries k"]:
        """The best k published documents for each query, best first, -1 where there are fewer."""
        ...


class Terms:
    """The frequency of each word in each text, and in later texts for the words that are known."""

    def __init__(self, texts: Sequence[str]) -> None:
        tokens = [words(text) for text in texts]
        self._column: dict[str, int] = {}
        for document in tokens:
            for token in document:
                self._column.setdefault(token, len(self._column))
        self.counts = self._matrix(tokens)

    def count(self, texts: Sequence[str]) -> scipy.sparse.csr_matrix:
        """Counts of known words, [texts, words]."""
        return self._matrix([[token for token in words(text) if token in self._column] for text in texts])

    def _matrix(self, tokens: list[list[str]]) -> scipy.sparse.csr_matrix:
        row = np.repeat(np.arange(len(tokens)), [len(text) for text in tokens])
        column = np.array([self._column[token] for text in tokens for token in text], dtype=np.int64)
        shape = (len(tokens), max(len(self._column), 1))
        return scipy.sparse.csr_matrix((np.ones(len(column)), (row, column)), shape=shape)


class Bm25:
    """Lexical scores over what is published: Lucene's BM25 with k1 = .9, b = .4.

    sum over the query's words of log(1 + (N - n + .5) / (n + .5)) f / (f + k1 (1 - b + b length / mean length)), for
    N documents, n of them with the word, f times in this one. It is crops_jax.retrieval.bm25 without stop words and
    stems, written out here because that module imports bm25s, whose import starts JAX's backend: a simulation would
    take hold of an accelerator that it does not use.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._index: tuple[int, scipy.sparse.csr_matrix] | None = None

    def scores(self, queries: Sequence[str], *, published: int) -> Float[np.ndarray, "queries published"]:
        return (self._terms.count(queries) @ self._index_of(published).T).toarray()

    def __call__(self, queries: Sequence[str], stock: Stock, *, k: int) -> Int[np.ndarray, "queries k"]:
        scores = self.scores(queries, published=stock.published)
        return top_k(np.where(scores > 0, scores, -np.inf), k)

    def _index_of(self, published: int) -> scipy.sparse.csr_matrix:
        if self._index is None or self._index[0] != published:
            self._index = (published, _bm25_weights(self._terms.counts[:published]))
        return self._index[1]


class LatentSpace:
    """Latent semantic analysis: cosines after a truncated SVD of TF-IDF, fitted on the first `fitted_on` documents.

    It knows synonyms by the company they keep, from texts alone.
    """

    def __init__(self, terms: Terms, *, dimensions: int, fitted_on: int) -> None:
        self._terms = terms
        known = terms.counts[:fitted_on]
        having = known.getnnz(axis=0)
        self._inverse_frequency = np.log((1 + fitted_on) / (1 + having)) + 1
        self._kept = np.sort(np.argsort(-having, kind="stable")[:_MOST_LATENT_WORDS])
        weights = self._weigh(known)
        self._basis = _leading_eigenvectors(weights.T @ weights, dimensions)
        self.documents = self._project(terms.counts)

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "texts dimensions"]:
        """Unit vectors; zero for a text without a known word."""
        return self._project(self._terms.count(texts))

    def _project(self, counts: scipy.sparse.csr_matrix) -> np.ndarray:
        vectors = self._weigh(counts) @ self._basis
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _weigh(self, counts: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
        weights = counts.copy()
        weights.data = 1 + np.log(weights.data)
        return scipy.sparse.csr_matrix(weights.multiply(self._inverse_frequency))[:, self._kept]


class LatentRetriever:
    """Stands for the retriever in service: a coarse latent space, drawn to what is popular already.

    Score: cosine + popularity_bias * log(1 + clicks) / log(1 + most clicks).
    """

    def __init__(self, space: LatentSpace, *, popularity_bias: float) -> None:
        self._space = space
        self._popularity_bias = popularity_bias

    def __call__(self, queries: Sequence[str], stock: Stock, *, k: int) -> Int[np.ndarray, "queries k"]:
        cosines = self._space.encode(queries) @ self._space.documents[: stock.published].T
        return top_k(cosines + self._popularity_bias * relative_popularity(stock.popularity)[: stock.published], k)


def relative_popularity(popularity: Float[np.ndarray, "documents"]) -> Float[np.ndarray, "documents"]:
    """log(1 + clicks), scaled to [0, 1]."""
    return np.log1p(popularity) / max(np.log1p(popularity.max()), 1e-12)


def top_k(scores: Float[np.ndarray, "queries documents"], k: int) -> Int[np.ndarray, "queries k"]:
    """Columns of the k highest scores of each row, best first, -1 for -inf or none.

    Scores are compared to four decimals; the earlier column comes first on ties.
    """
    count = scores.shape[1]
    found = np.isfinite(scores)
    # One integer a column that holds score and place: all differ, so a partition has one answer only.
    rounded = np.rint(np.where(found, scores, 0) * _SCORE_STEPS).astype(np.int64)
    keys = np.where(found, np.arange(count) - rounded * count, np.iinfo(np.int64).max)
    if k < count:
        columns = np.argpartition(keys, k - 1, axis=1)[:, :k] if k else np.empty((len(scores), 0), np.int64)
    else:
        columns = np.tile(np.arange(count), (len(scores), 1))
    columns = np.take_along_axis(columns, np.argsort(np.take_along_axis(keys, columns, 1), axis=1, kind="stable"), 1)
    columns = np.where(np.take_along_axis(found, columns, axis=1), columns, -1)
    return np.pad(columns, ((0, 0), (0, max(k - count, 0))), constant_values=-1).astype(np.int32)


def _leading_eigenvectors(gram: scipy.sparse.csr_matrix, count: int) -> np.ndarray:
    size = gram.get_shape()[0]
    if count >= size // 2:
        return np.linalg.eigh(gram.toarray())[1][:, -count:]
    # ARPACK starts from a random vector unless given one.
    return scipy.sparse.linalg.eigsh(gram, k=count, v0=np.ones(size))[1]


def _bm25_weights(counts: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    documents = counts.get_shape()[0]
    having = counts.getnnz(axis=0)
    rarity = np.log(1 + (documents - having + 0.5) / (having + 0.5))
    length = np.asarray(counts.sum(axis=1)).ravel()
    damping = _K1 * (1 - _B + _B * length / max(length.mean(), 1e-12))
    weights = counts.copy()
    weights.data = counts.data / (counts.data + np.repeat(damping, np.diff(counts.indptr))) * rarity[counts.indices]
    return weights
