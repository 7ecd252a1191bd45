import numpy as np
import pytest

from crops_jax.retrieval.reranking import reranked

INDICES = np.array([[7, 2, 4, 9], [3, 5, -1, -1]], np.int32)
SCORES = np.array([[0.9, 0.8, 0.7, 0.6], [0.5, 0.4, 0, 0]], np.float32)


def test_the_first_documents_are_in_the_order_of_the_new_scores_and_the_rest_stays():
    scores, indices = reranked((SCORES, INDICES), np.array([[0.1, 0.5, 0.3], [0.2, 0.6, 0.99]], np.float32))
    # The second list has two documents, so its third new score belongs to none.
    assert indices.tolist() == [[2, 4, 7, 9], [5, 3, -1, -1]]
    np.testing.assert_allclose(scores, [[0.5, 0.3, 0.1, 0.6], [0.6, 0.2, 0, 0]], rtol=1e-6)
    assert (scores.dtype, indices.dtype) == (np.float32, np.int32)
    assert INDICES[0].tolist() == [7, 2, 4, 9]


def test_equal_scores_keep_the_order_of_the_list():
    new = np.array([[0.5, 0.7, 0.5, 0.7], [0, 0, 0, 0]], np.float32)
    assert reranked((SCORES, INDICES), new)[1].tolist() == [[2, 9, 7, 4], [3, 5, -1, -1]]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_sorting(seed):
    generator = np.random.default_rng(seed)
    indices = np.stack([generator.permutation(30)[:10] for _ in range(8)]).astype(np.int32)
    scores = np.zeros((8, 10), np.float32)
    new = generator.integers(0, 4, (8, 6)).astype(np.float32)
    wanted = []
    for row, own in zip(indices.tolist(), new.tolist(), strict=True):
        first = sorted(range(6), key=lambda place: (-own[place], place))
        wanted.append([row[place] for place in first] + row[6:])
    assert reranked((scores, indices), new)[1].tolist() == wanted


def test_impossible_scores_are_refused():
    with pytest.raises(ValueError, match="shape"):
        reranked((SCORES, INDICES), np.zeros((2, 5), np.float32))
    with pytest.raises(ValueError, match="shape"):
        reranked((SCORES, INDICES), np.zeros((1, 2), np.float32))
    with pytest.raises(ValueError, match="not a number"):
        reranked((SCORES, INDICES), np.full((2, 1), np.nan, np.float32))
    assert reranked((SCORES, INDICES), np.zeros((2, 0), np.float32))[1].tolist() == INDICES.tolist()
