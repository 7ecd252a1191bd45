import numpy as np
import pytest

from crops_jax.retrieval.fusion import (
    WEIGHTS,
    best_weight,
    min_max,
    reciprocal_rank_fusion,
    weight_curve,
    weighted_fusion,
)

DENSE = (np.array([[0.9, 0.5, 0.1]], np.float32), np.array([[7, 2, 4]], np.int32))
BM25 = (np.array([[12.0, 6.0]], np.float32), np.array([[2, 9]], np.int32))
EMPTY = (np.zeros((1, 2), np.float32), np.full((1, 2), -1, np.int32))


def reference(lists, gains, *, k, order):
    """Both forms as one sentence of Python each, in float64; gains(row of scores, place) of one list."""
    rows = []
    for row in range(len(lists[0][1])):
        sums = {}
        for number, (scores, indices) in enumerate(lists):
            held = [(float(s), int(d)) for s, d in zip(scores[row], indices[row], strict=True) if d >= 0]
            for place, (_, document) in enumerate(held):
                gain = gains(number, [score for score, _ in held], place)
                sums[document] = sums.get(document, 0.0) + gain
        rows.append(sorted(sums, key=lambda document: (-np.float32(sums[document]), order[document]))[:k])
    return rows


def random_lists(seed, *, queries=20, corpus=40, depth=12):
    generator = np.random.default_rng(seed)
    indices = np.stack([generator.permutation(corpus)[:depth] for _ in range(queries)]).astype(np.int32)
    # Few distinct scores, so that there are ties within and between the lists.
    scores = -np.sort(-generator.integers(0, 5, indices.shape), axis=1).astype(np.float32)
    lengths = generator.integers(0, depth + 1, queries)
    padding = np.arange(depth) >= lengths[:, None]
    return np.where(padding, np.float32(0), scores), np.where(padding, np.int32(-1), indices)


def test_reciprocal_rank_fusion_by_hand():
    scores, indices = reciprocal_rank_fusion([DENSE, BM25], 5)
    # 2: 1/62 + 1/61; 7: 1/61; 9: 1/62; 4: 1/63.
    assert indices.tolist() == [[2, 7, 9, 4, -1]]
    np.testing.assert_allclose(scores, [[1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63, 0]], rtol=1e-6)
    assert scores.dtype == np.float32
    assert indices.dtype == np.int32
    assert reciprocal_rank_fusion([DENSE, BM25], 2, constant=0)[1].tolist() == [[2, 7]]


def test_weighted_fusion_by_hand():
    scores, indices = weighted_fusion([DENSE, BM25], [0.75, 0.25], 5)
    # Dense: 7 -> 1, 2 -> 0.5, 4 -> 0. BM25: 2 -> 1, 9 -> 0. 2: 0.375 + 0.25; 4 and 9 tie at 0.
    assert indices.tolist() == [[7, 2, 4, 9, -1]]
    np.testing.assert_allclose(scores, [[0.75, 0.625, 0, 0, 0]], rtol=1e-6)
    assert weighted_fusion([DENSE, BM25], [0.6, 0.4], 1)[1].tolist() == [[2]]


def test_a_list_of_equal_scores_prefers_its_documents_and_an_empty_list_none():
    one = (np.array([[3.0, 3.0, 0.0]], np.float32), np.array([[5, 6, -1]], np.int32))
    np.testing.assert_array_equal(min_max(*one), [[1, 1, 0]])
    np.testing.assert_array_equal(min_max(*EMPTY), [[0, 0]])
    assert weighted_fusion([DENSE, one], [0.4, 0.6], 3)[1].tolist() == [[5, 6, 7]]
    for fused in (reciprocal_rank_fusion([DENSE, EMPTY], 3), weighted_fusion([DENSE, EMPTY], [0.5, 0.5], 3)):
        assert fused[1].tolist() == [[7, 2, 4]]


def test_ties_go_by_the_given_order():
    mirrored = [(BM25[0], np.array([[3, 8]], np.int32)), (BM25[0], np.array([[8, 3]], np.int32))]
    assert reciprocal_rank_fusion(mirrored, 2)[1].tolist() == [[3, 8]]
    order = np.arange(10, 0, -1)
    assert reciprocal_rank_fusion(mirrored, 2, order=order)[1].tolist() == [[8, 3]]
    assert weighted_fusion(mirrored, [1, 1], 2, order=order)[1].tolist() == [[8, 3]]


@pytest.mark.parametrize("seed", range(3))
def test_both_forms_equal_their_definitions(seed):
    lists = [random_lists(seed), random_lists(seed + 10, depth=7), random_lists(seed + 20)]
    order = np.random.default_rng(seed).permutation(40)
    weights = [0.5, 0.3, 0.2]

    def weighted(number, scores, place):
        low, high = min(scores), max(scores)
        return weights[number] * (1.0 if high == low else (scores[place] - low) / (high - low))

    wanted = reference(lists, lambda _, __, place: 1 / (60 + place + 1), k=15, order=order)
    found = reciprocal_rank_fusion(lists, 15, order=order)[1]
    assert [[d for d in row if d >= 0] for row in found.tolist()] == wanted
    wanted = reference(lists, weighted, k=15, order=order)
    scores, found = weighted_fusion(lists, weights, 15, order=order)
    assert [[d for d in row if d >= 0] for row in found.tolist()] == wanted
    assert (np.diff(scores, axis=1) <= 0).all()


def test_the_order_of_the_queries_changes_nothing():
    lists = [random_lists(1), random_lists(2)]
    backwards = [(scores[::-1], indices[::-1]) for scores, indices in lists]
    for fuse in (reciprocal_rank_fusion, lambda given, k: weighted_fusion(given, [0.3, 0.7], k)):
        np.testing.assert_array_equal(fuse(backwards, 9)[1], fuse(lists, 9)[1][::-1])


def test_the_weight_is_chosen_by_the_measure():
    def first_is(document):
        return lambda indices: float(np.mean(indices[:, 0] == document))

    # 7 leads while w > (w / 2) + (1 - w), that is from w = 0.7 on (at 2/3 both are equal), and 2 below that.
    curve = weight_curve(DENSE, BM25, first_is(7), 3)
    assert list(curve) == list(WEIGHTS)
    assert [weight for weight, value in curve.items() if value == 1] == [0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0]
    assert best_weight(curve) == 0.7
    assert best_weight(weight_curve(DENSE, BM25, first_is(2), 3)) == 0.5


def test_of_equal_measures_the_weight_in_the_middle_is_chosen():
    assert best_weight({0.0: 1.0, 0.45: 1.0, 0.55: 1.0, 1.0: 1.0}) == 0.55
    assert best_weight({0.0: 2.0, 0.5: 1.0}) == 0.0
    with pytest.raises(ValueError, match="at least one"):
        best_weight({})


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="same queries"):
        reciprocal_rank_fusion([DENSE, random_lists(0)], 3)
    with pytest.raises(ValueError, match="same queries"):
        reciprocal_rank_fusion([], 3)
    with pytest.raises(ValueError, match="k must be"):
        reciprocal_rank_fusion([DENSE], 0)
    with pytest.raises(ValueError, match="constant"):
        reciprocal_rank_fusion([DENSE], 3, constant=-1)
    for weights in ([1.0], [-0.1, 1.1], [np.nan, 1.0]):
        with pytest.raises(ValueError, match="one weight"):
            weighted_fusion([DENSE, BM25], weights, 3)
