"""Search and reranking by a Poly-encoder against a loop over all pairs, with tiles that do not divide the documents."""

import numpy as np
import pytest

from crops_jax.retrieval import poly_encoder
from crops_jax.retrieval.poly_encoder import poly_scores_at, poly_top_k
from tests.crops_jax.models.test_poly_encoder import reference_score, unit

TEMPERATURE = 0.1


def case(queries=5, codes=3, docs=23, dim=6):
    random = np.random.default_rng(0)
    contexts = np.stack([unit(row) for row in random.normal(size=(queries * codes, dim))])
    documents = np.stack([unit(row) for row in random.normal(size=(docs, dim))]).astype(np.float32)
    documents[7] = documents[19] = documents[2]
    return contexts.reshape(queries, codes, dim).astype(np.float32), documents


def expected_scores(contexts, documents):
    return np.array([[reference_score(one, document, TEMPERATURE) for document in documents] for one in contexts])


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of 8 documents, and 2 queries at once."""
    monkeypatch.setattr(poly_encoder, "_TILE_DOCS", 8)
    monkeypatch.setattr(poly_encoder, "_COSINES", 2 * 3 * 8)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("k", [4, 23])
def test_the_first_documents_are_those_of_a_loop_over_all_pairs(k):
    contexts, documents = case()
    counted = []
    scores, indices = poly_top_k(contexts, documents, k, temperature=TEMPERATURE, progress=counted.append)
    expected = expected_scores(contexts, documents)
    order = np.lexsort((np.broadcast_to(np.arange(23), (5, 23)), -expected.round(6)))[:, :k]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, order, 1), atol=1e-6)
    assert sum(counted) == 5 * 23


@pytest.mark.usefixtures("small_tiles")
def test_order_decides_between_equal_scores():
    contexts, documents = case()
    order = np.arange(23)
    order[[2, 7, 19]] = 19, 2, 7
    _, indices = poly_top_k(contexts, documents, 23, temperature=TEMPERATURE, order=order)
    for row in indices.tolist():
        first = row.index(7)
        assert row[first : first + 3] == [7, 19, 2]


@pytest.mark.usefixtures("small_tiles")
def test_scores_of_chosen_documents_are_those_of_the_search():
    contexts, documents = case()
    indices = np.random.default_rng(1).integers(0, 23, (5, 9)).astype(np.int32)
    indices[1, 6:] = -1
    found = poly_scores_at(contexts, documents, indices, temperature=TEMPERATURE)
    expected = np.take_along_axis(expected_scores(contexts, documents), np.maximum(indices, 0), 1)
    np.testing.assert_allclose(found, np.where(indices >= 0, expected, 0), atol=1e-6)


def test_what_cannot_be_searched_is_refused():
    contexts, documents = case()
    with pytest.raises(
        ValueError, match=r"k must be a whole number from 1 to the number of documents \(23\), found 24"
    ):
        poly_top_k(contexts, documents, 24, temperature=TEMPERATURE)
    contexts[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="contexts holds a vector that is not finite"):
        poly_scores_at(contexts, documents, np.zeros((5, 1), np.int32), temperature=TEMPERATURE)
