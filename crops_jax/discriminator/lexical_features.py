"""Features of a query and a document from words and character trigrams, for millions of pairs at a time.

Each distinct text is split into words and trigrams once. For each pair, the few words of the query are then looked up
in one sorted array of (document, word) keys.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from crops_jax.text import normalise_query, words
from crops_jax.text.forms import trigrams

FEATURES = ("idf_coverage", "bm25", "trigram_coverage", "leading_idf_coverage", "every_word")
# The parameters of BM25, in Lucene's form, that published baselines use.
_K1, _B = 0.9, 0.4
# document_text begins with the title, which has about this number of words.
_LEADING_WORDS = 12
_PAIRS_AT_ONCE = 200_000


class CorpusStatistics(NamedTuple):
    """The statistics of a corpus that BM25 uses.

    documents: the number of documents. average_length: the mean number of words of a document. frequency: word -> the
    number of documents that contain it.
    """

    documents: int
    average_length: float
    frequency: dict[str, int]

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> "CorpusStatistics":
        """Returns the statistics of the texts of documents; `texts` can be a generator."""
        frequency: dict[str, int] = {}
        documents = length = 0
        for text in texts:
            tokens = words(text)
            documents += 1
            length += len(tokens)
            for word in set(tokens):
                frequency[word] = frequency.get(word, 0) + 1
        return cls(documents, length / max(documents, 1), frequency)

    def idf(self, vocabulary: Iterable[str]) -> Float64[np.ndarray, "words"]:
        """Returns ln(1 + (n - df + 0.5) / (df + 0.5)) of each word (Lucene)."""
        df = np.array([self.frequency.get(word, 0) for word in vocabulary], np.float64)
        return np.log1p((self.documents - df + 0.5) / (df + 0.5))


class _Bags(NamedTuple):
    """The distinct items of each text, sorted by (text, item).

    start: the entries of text t are start[t] to start[t + 1] - 1. key: text << 32 | item. count: the number of times
    that the text has the item. first: the first position of the item in the text.
    """

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
    """Returns the features of pairs, in the order of FEATURES; each feature is in [0, 1].

    idf_coverage: the share of the query's total IDF that belongs to words in the document.
    bm25: BM25 divided by its upper bound, the query's total IDF (Lucene's form, k1 .9, b .4).
    trigram_coverage: the share of the query's distinct character trigrams that the document has.
    leading_idf_coverage: idf_coverage by the document's first words only, where the title is.
    every_word: 1 if every word of the query is in the document, otherwise 0.
    All features of a query without words are 0.

    Args:
      queries, documents: distinct texts.
      query_index, document_index: the indices of the query and the document of each pair.
      corpus: the statistics for the IDF and the mean length.
    """
    queries = [normalise_query(query) for query in queries]
    documents = [normalise_query(document) for document in documents]
    vocabulary: dict[str, int] = {}
    query_words = [[vocabulary.setdefault(word, len(vocabulary)) for word in words(query)] for query in queries]
    document_tokens = [words(document) for document in documents]
    lengths = np.array([len(tokens) for tokens in document_tokens], np.float64)
    # Only words of some query can match; -1 marks the positions of the other words.
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
    flat = np.fromiter((item for text in items for item in text), np.int64, int(lengths.sum()))
    row = np.repeat(np.arange(len(items)), lengths)
    position = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    known = flat >= 0
    return _bags_of_entries(row[known], flat[known], position[known], len(items))


def _trigram_bags(queries: Sequence[str], documents: Sequence[str]) -> tuple[_Bags, _Bags]:
    query_row, query_code = trigrams(queries)
    document_row, document_code = trigrams(documents)
    vocabulary, query_item = np.unique(query_code, return_inverse=True)
    if not len(vocabulary):
        vocabulary = np.array([-1])
    document_item = np.minimum(np.searchsorted(vocabulary, document_code), len(vocabulary) - 1)
    known = vocabulary[document_item] == document_code
    row, item = document_row[known], document_item[known]
    return (
        _bags_of_entries(query_row, query_item, np.zeros_like(query_row), len(queries)),
        _bags_of_entries(row, item, np.zeros_like(row), len(documents)),
    )


def _bags_of_entries(row: np.ndarray, item: np.ndarray, position: np.ndarray, texts: int) -> _Bags:
    # The index of np.unique is the first occurrence, and positions ascend within a text.
    key, first, count = np.unique(row << 32 | item, return_index=True, return_counts=True)
    start = np.searchsorted(key >> 32, np.arange(texts + 1))
    return _Bags(start, key, count, position[first])


def _matches(query_bags: _Bags, document_bags: _Bags, q: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns for each item of each pair's query: pair, item, its count and its first position in the document."""
    sizes = np.diff(query_bags.start)[q]
    pair = np.repeat(np.arange(len(q)), sizes)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    item = query_bags.key[query_bags.start[q][pair] + within] & 0xFFFFFFFF
    if not len(document_bags.key):
        return pair, item, np.zeros_like(item), np.zeros_like(item)
    key = d[pair] << 32 | item
    entry = np.minimum(np.searchsorted(document_bags.key, key), len(document_bags.key) - 1)
    matches = document_bags.key[entry] == key
    return pair, item, np.where(matches, document_bags.count[entry], 0), document_bags.first[entry]


def _sum(pair: np.ndarray, value: np.ndarray, pairs: int) -> Float64[np.ndarray, "pairs"]:
    return np.bincount(pair, value.astype(np.float64), minlength=pairs)
