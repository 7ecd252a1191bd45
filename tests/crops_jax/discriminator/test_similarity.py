"""Similarity of queries."""

import numpy as np
import pytest

from crops_jax.discriminator.similarity import EncoderSimilarity, TrigramSimilarity, open_similarity
from crops_jax.text.forms import distinct, trigrams


@pytest.mark.parametrize(
    ("left", "right", "cosine"),
    [
        # " ab " has " ab", "ab "; " abc " has " ab", "abc", "bc ".
        ("ab", "abc", 1 / np.sqrt(2 * 3)),
        ("abc", "abc", 1),
        # " aaaa " has " aa", twice "aaa", "aa "; " aaa " has each once.
        ("aaaa", "aaa", (1 + 2 + 1) / np.sqrt(6 * 3)),
        ("abc", "xyz", 0),
        ("x", "x", 1),
        ("苹果", "苹果手机", 1 / np.sqrt(2 * 4)),
        ("", "abc", 0),
        ("", "", 0),
    ],
)
def test_cosine_of_trigram_counts(left, right, cosine):
    assert TrigramSimilarity().score([left], [right])[0] == pytest.approx(cosine, abs=1e-6)


def test_a_pair_s_score_does_not_depend_on_the_others():
    left, right = ["red shoe", "hat", "red shoe", "ü"], ["red shoes", "cap", "shoe", "u"]
    together = TrigramSimilarity().score(left, right)
    assert together.dtype == np.float32
    alone = [TrigramSimilarity().score([a], [b])[0] for a, b in zip(left, right, strict=True)]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(TrigramSimilarity().score(right, left), together)


def test_no_pairs():
    assert TrigramSimilarity().score([], []).shape == (0,)
    assert EncoderSimilarity(None).score([], []).shape == (0,)


def test_trigrams_stay_within_their_text():
    row, code = trigrams(["ab", "", "c"])
    assert row.tolist() == [0, 0, 2]
    assert len(set(code.tolist())) == 3


def test_distinct_texts_and_their_places():
    texts, left, right = distinct(["b", "a", "b"], ["c", "a", "b"])
    assert texts == ["b", "a", "c"]
    assert left.tolist() == [0, 1, 0]
    assert right.tolist() == [2, 1, 0]


class CountingEncoder:
    def __init__(self):
        self.texts = []

    def encode(self, texts, *, tower, progress):
        assert tower == "query"
        self.texts += texts
        return np.array([[len(text), 1.0] for text in texts], np.float32)


def test_an_encoder_is_asked_once_for_each_query():
    encoder = CountingEncoder()
    scores = EncoderSimilarity(encoder).score(["a", "a"], ["abc", "a"])
    assert encoder.texts == ["a", "abc"]
    np.testing.assert_allclose(scores, [4 / np.sqrt(2 * 10), 1], rtol=1e-6)


def test_trigrams_are_the_default():
    assert isinstance(open_similarity(), TrigramSimilarity)
