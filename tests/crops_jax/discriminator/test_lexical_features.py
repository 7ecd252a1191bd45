"""Lexical features against plain loops written from their definitions."""

import numpy as np
import pytest

from crops_jax.discriminator.lexical_features import FEATURES, CorpusStatistics, pair_features
from crops_jax.text import words

CORPUS = ["red shoes for men", "blue shoes", "a red hat", "苹果手机壳", "hat hat hat"]


def oracle(query, document, corpus):
    df = {word: sum(word in words(text) for text in corpus) for word in words(query)}
    idf = {word: np.log(1 + (len(corpus) - n + 0.5) / (n + 0.5)) for word, n in df.items()}
    if not idf:
        return [0.0] * 5
    found = words(document)
    mean_length = np.mean([len(words(text)) for text in corpus])
    damping = 0.9 * (1 - 0.4 + 0.4 * len(found) / mean_length)
    total = sum(idf.values())

    def trigrams(text):
        return {f" {text} "[i : i + 3] for i in range(len(text))}

    return [
        sum(value for word, value in idf.items() if word in found) / total,
        sum(value * found.count(word) / (found.count(word) + damping) for word, value in idf.items()) / total,
        len(trigrams(query) & trigrams(document)) / len(trigrams(query)),
        sum(value for word, value in idf.items() if word in found[:12]) / total,
        float(all(word in found for word in idf)),
    ]


def test_features_are_as_defined():
    queries = ["red shoes", "hat", "苹果", "missing", "shoes shoes red", "!?"]
    documents = [*CORPUS, "", "filler " * 12 + "red hat", "redshoes"]
    pairs = [(q, d) for q in range(len(queries)) for d in range(len(documents))]
    q, d = np.array(pairs).T
    features = pair_features(queries, documents, q, d, corpus=CorpusStatistics.from_texts(CORPUS))
    assert features.shape == (len(pairs), len(FEATURES))
    expected = [oracle(queries[a], " ".join(documents[b].split()), CORPUS) for a, b in pairs]
    np.testing.assert_allclose(features, expected, atol=1e-12)
    assert features.min() >= 0
    assert features.max() <= 1


def test_case_width_and_spacing_do_not_matter():
    corpus = CorpusStatistics.from_texts(CORPUS)
    zero = np.zeros(1, np.int64)
    plain = pair_features(["red shoes"], ["red shoes for men"], zero, zero, corpus=corpus)
    other = pair_features([" ＲＥＤ  Shoes"], ["Red SHOES\nfor men"], zero, zero, corpus=corpus)
    np.testing.assert_array_equal(plain, other)


def test_corpus_statistics_count_documents_and_not_words():
    corpus = CorpusStatistics.from_texts(iter(CORPUS))
    assert corpus.documents == 5
    assert corpus.frequency["hat"] == 2
    assert corpus.average_length == pytest.approx((4 + 2 + 3 + 4 + 3) / 5)


def test_no_pairs_and_an_empty_corpus():
    none = np.zeros(0, np.int64)
    assert pair_features([], [], none, none, corpus=CorpusStatistics.from_texts([])).shape == (0, 5)
    zero = np.zeros(1, np.int64)
    assert np.isfinite(pair_features(["a"], [""], zero, zero, corpus=CorpusStatistics.from_texts([]))).all()
