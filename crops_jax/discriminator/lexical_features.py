"""Features of a query and a document from words and character trigrams alone, for millions of pairs at a time.

Each distinct text is cut into words and trigrams once. A pair is then a look-up of the query's few words in one
sorted array of (document, word) keys.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from crops_jax.text import normalise_query, words
from crops_jax.text.forms import trigrams

FEATURES = ("idf_coverage", "bm25", "trigram_coverage", "leading_idf_coverage", "every_word")
# Lucene's BM25 with the parameters of the BM25 references.
_K1, _B = 0.9, 0.4
# document_text begins with the title; about a title's length.
_LEADING_WORDS = 12
_PAIRS_AT_ONCE = 200_000


class CorpusStatistics(NamedTuple):
    """What BM25 knows of a corpus.

    documents: how many there are. average_length: words a document. frequency: in how many documents a word is.
    """

    documents: int
    average_length: float
    frequency: dict[str, int]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "CorpusStatistics":
        """Counts the documents' words; `texts` may be a generator."""
        frequency: dict[str, int] = {}
        documents = length = 0
        for text in texts:
            found = words(text)
            documents += 1
            length += len(found)
            for word in set(found):
                frequency[word] = frequency.get(word, 0) + 1
        return cls(documents, length / max(documents, 1), frequency)

    def idf(self, vocabulary: Iterable[str]) -> Float64[np.ndarray, "words"]:
        """ln(1 + (n - df + 0.5) / (df + 0.5)) of each word (Lucene)."""
        df = np.array([self.frequency.get(word, 0) for word in vocabulary], np.float64)
        return np.log1p((self.documents - df + 0.5) / (df + 0.5))


class _Bags(NamedTuple):
    """Distinct items of each text, sorted by (text, item): item[start[t]:start[t + 1]] are those of text t."""

    start: Int64[np.ndarray, "texts_and_1"]
    key: Int64[np.ndarray, "entries"]
    count: Int64[np.ndarray, "entries"]
    first: Int64[np.ndarray, "entries"]


def pair_features(
    queries: Sequence[str],
    documents: Sequence[str],
    query_index: Int64[np.ndarray, "pairs"],
    document_index: Int64[np.ndarray, "pairs"],
    *,
    corpus: CorpusStatistics,
) -> Float64[np.ndarray, "pairs features"]:
    """Features of pairs of distinct queries and distinct documents, in the order of FEATURES; each in [0, 1].

    idf_coverage: the share of the query's IDF that words in the document have.
    bm25: BM25 over its least upper bound, the query's IDF (Lucene's form, k1 .9, b .4).
    trigram_coverage: the share of the query's distinct character trigrams that the document has.
    leading_idf_coverage: as the first, among the document's first words, where the title is.
    every_word: 1 where every word of the query is in the document.
    A query without words has 0 everywhere.
    """
    queries = [normalise_query(query) for query in queries]
    documents = [normalise_query(document) for document in documents]
    vocabulary: dict[str, int] = {}
    query_words = [[vocabulary.setdefault(word, len(vocabulary)) for word in words(query)] for query in queries]
    document_tokens = [words(document) for document in documents]
    lengths = np.array([len(tokens) for tokens in document_tokens], np.float64)
    # Only words that some query has can count; -1 keeps the places of the others.
    document_words = [[vocabulary.get(word, -1) for word in tokens] for tokens in document_tokens]
    word_bags = _bags(query_words), _bags(document_words)
    trigram_bags = _trigram_bags(queries, documents)
    idf = corpus.idf(vocabulary)
    dampening = _K1 * (1 - _B + _B * lengths / max(corpus.average_length, 1.0))
    result = np.zeros((len(query_index), len(FEATURES)))
    for begin in range(0, len(result), _PAIRS_AT_ONCE):
        q, d = (index[begin : begin + _PAIRS_AT_ONCE] for index in (query_index, document_index))
        features = result[begin : begin + len(q)]
        pair, item, count, first = _matches(*word_bags, q, d)
        weight = idf[item]
        total = np.maximum(_sum(pair, weight, len(q)), 1e-12)
        features[:, 0] = _sum(pair, weight * (count > 0), len(q)) / total
        features[:, 1] = _sum(pair, weight * count / (count + dampening[d][pair]), len(q)) / total
        features[:, 3] = _sum(pair, weight * ((count > 0) & (first < _LEADING_WORDS)), len(q)) / total
        distinct_words = np.diff(word_bags[0].start)[q]
        features[:, 4] = (_sum(pair, count > 0, len(q)) == distinct_words) & (distinct_words > 0)
        pair, _, count, _ = _matches(*trigram_bags, q, d)
        features[:, 2] = _sum(pair, count > 0, len(q)) / np.maximum(np.diff(trigram_bags[0].start)[q], 1)
        features[distinct_words == 0] = 0
    return result


def _bags(items: Sequence[Sequence[int]]) -> _Bags:
    lengths = np.fromiter(map(len, items), np.int64, len(items))
    flat = np.fromiter((item for each in items for item in each), np.int64, int(lengths.sum()))
    row = np.repeat(np.arange(len(items)), lengths)
    place = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    known = flat >= 0
    return _bags_of_entries(row[known], flat[known], place[known], len(items))


def _trigram_bags(queries: Sequence[str], documents: Sequence[str]) -> tuple[_Bags, _Bags]:
    query_row, query_code = trigrams(queries)
    document_row, document_code = trigrams(documents)
    vocabulary, query_item = np.unique(query_code, return_inverse=True)
    if not len(vocabulary):
        vocabulary = np.array([-1])
    place = np.minimum(np.searchsorted(vocabulary, document_code), len(vocabulary) - 1)
    known = vocabulary[place] == document_code
    row, item = document_row[known], place[known]
    return (
        _bags_of_entries(query_row, query_item, np.zeros_like(query_row), len(queries)),
        _bags_of_entries(row, item, np.zeros_like(row), len(documents)),
    )


def _bags_of_entries(row: np.ndarray, item: np.ndarray, place: np.ndarray, texts: int) -> _Bags:
    # np.unique's index is the first occurrence, and places ascend within a text.
    key, first, count = np.unique(row << 32 | item, return_index=True, return_counts=True)
    start = np.searchsorted(key >> 32, np.arange(texts + 1))
    return _Bags(start, key, count, place[first])


def _matches(query_bags: _Bags, document_bags: _Bags, q: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, ...]:
    """Each item of each pair's query: (pair, item, how often the document has it, the place where it first does)."""
    sizes = np.diff(query_bags.start)[q]
    pair = np.repeat(np.arange(len(q)), sizes)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    item = query_bags.key[query_bags.start[q][pair] + within] & 0xFFFFFFFF
    if not len(document_bags.key):
        return pair, item, np.zeros_like(item), np.zeros_like(item)
    wanted = d[pair] << 32 | item
    found = np.minimum(np.searchsorted(document_bags.key, wanted), len(document_bags.key) - 1)
    hit = document_bags.key[found] == wanted
    return pair, item, np.where(hit, document_bags.count[found], 0), document_bags.first[found]


def _sum(pair: np.ndarray, value: np.ndarray, pairs: int) -> Float64[np.ndarray, "pairs"]:
    return np.bincount(pair, value.astype(np.float64), minlength=pairs)
