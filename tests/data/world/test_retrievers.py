import bm25s
import numpy as np
import pytest

from crops_jax.text import words
from data.world.retrievers import (
    Bm25,
    LatentRetriever,
    LatentSpace,
    Stock,
    Terms,
    top_k,
    top_k_of_matches,
    values_at,
)

TEXTS = [
    "red sofa with cushion",
    "couch cushion and couch padding",
    "sofa couch repair",
    "garden rose",
    "rose shrub and garden thorn thorn thorn",
    "shrub thorn",
]


def test_bm25_equals_bm25s():
    index = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    index.index([words(text) for text in TEXTS], show_progress=False)
    queries = ["sofa", "thorn rose", "couch couch", "and garden unknown"]
    scores = Bm25(Terms(TEXTS)).scores(queries, published=len(TEXTS))
    for row, query in zip(scores, queries, strict=True):
        known = [word for word in words(query) if word != "unknown"]
        np.testing.assert_allclose(row, index.get_scores(known), rtol=1e-5)


def test_bm25_knows_nothing_of_later_documents():
    early, later = Bm25(Terms(TEXTS[:4])), Bm25(Terms(TEXTS))
    np.testing.assert_allclose(later.scores(["sofa rose"], published=4), early.scores(["sofa rose"], published=4))
    stock = Stock(4, np.zeros(6))
    assert later(["shrub"], stock, k=3).tolist() == [[-1, -1, -1]]


def test_latent_space_sees_synonyms_by_their_company():
    space = LatentSpace(Terms(TEXTS), dimensions=2, fitted_on=6)
    sofa, couch, rose = space.encode(["sofa", "couch", "rose"])
    assert sofa @ couch > 0.8
    assert abs(sofa @ rose) < 0.3
    assert not space.encode(["unknown"]).any()


def test_popularity_bias_decides_between_equals():
    texts = ["rose garden", "rose garden", "sofa couch", "sofa couch"]
    retrieve = LatentRetriever(LatentSpace(Terms(texts), dimensions=2, fitted_on=4), popularity_bias=0.3)
    assert retrieve(["rose"], Stock(4, np.array([0.0, 9, 0, 0])), k=2).tolist() == [[1, 0]]
    assert retrieve(["rose"], Stock(4, np.array([9.0, 0, 0, 0])), k=2).tolist() == [[0, 1]]
    assert retrieve(["rose"], Stock(1, np.array([0.0, 9, 0, 0])), k=2).tolist() == [[0, -1]]


@pytest.mark.parametrize("k", [0, 1, 3, 5, 8])
def test_top_k_against_sorting(k):
    rng = np.random.default_rng(0)
    scores = rng.integers(-3, 4, (50, 5)) / 10
    scores[rng.random(scores.shape) < 0.2] = -np.inf
    for row, columns in zip(scores, top_k(scores, k), strict=True):
        expected = [i for i in sorted(range(5), key=lambda i: (-row[i], i)) if row[i] > -np.inf][:k]
        assert columns.tolist() == expected + [-1] * (k - len(expected))


def test_top_k_of_many_columns_against_sorting():
    """More columns than are compared one by one: blocks decide which columns can be among the best."""
    rng = np.random.default_rng(0)
    scores = np.round(rng.standard_normal((6, 9000)), 2)
    scores[1] = 0.5  # all equal: the earliest
    scores[2, 50:] = -np.inf  # fewer than k blocks have a score
    scores[3, :] = np.where(np.arange(9000) % 7 == 3, 2.0, -np.inf)
    scores[4, 8990:] = 9.0  # in the columns after the last whole block
    for row, found in zip(scores, top_k(scores, 100), strict=True):
        expected = [i for i in sorted(range(9000), key=lambda i: (-row[i], i)) if row[i] > -np.inf][:100]
        assert found.tolist() == expected + [-1] * (100 - len(expected))
    finite = scores[[0, 1, 4]]
    np.testing.assert_array_equal(top_k(finite, 100), top_k(scores, 100)[[0, 1, 4]])


def test_sparse_scores_give_what_dense_ones_give():
    bm25 = Bm25(Terms(TEXTS))
    queries = ["sofa cushion", "thorn rose", "unknown", "and"]
    scores = bm25.scores(queries, published=5)
    matches = bm25.matches(queries, published=5)
    for k in (0, 1, 2, 9):
        expected = top_k(np.where(scores > 0, scores, -np.inf), k)
        np.testing.assert_array_equal(top_k_of_matches(matches, k), expected)
    columns = np.array([[4, 0, 0], [1, 2, 3], [0, 1, 2], [4, 4, 1]])
    np.testing.assert_array_equal(values_at(matches, columns), np.take_along_axis(scores, columns, 1))
    relative = bm25.relative_scores(queries, columns, published=5)
    expected = np.take_along_axis(scores / np.maximum(scores.max(axis=1, keepdims=True), 1e-6), columns, 1)
    np.testing.assert_allclose(relative, expected)
