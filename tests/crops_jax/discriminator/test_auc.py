import numpy as np
import pytest

from crops_jax.discriminator.auc import auc_intervals, graded_auc


def definition(scores, targets, weights):
    """All couples, one by one."""
    right = all_of_them = 0.0
    for i in range(len(scores)):
        for j in range(len(scores)):
            if targets[i] > targets[j]:
                weight = weights[i] * weights[j]
                right += weight * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
                all_of_them += weight
    return right / all_of_them


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_share_of_couples_in_the_right_order(seed):
    generator = np.random.default_rng(seed)
    scores, targets = generator.integers(0, 9, 30) / 9, generator.integers(0, 4, 30) / 3
    weights = generator.integers(0, 4, 30)
    assert graded_auc(scores, targets, weights=weights) == pytest.approx(definition(scores, targets, weights))
    assert graded_auc(scores, targets) == pytest.approx(definition(scores, targets, np.ones(30)))
    assert graded_auc(-scores, targets) == pytest.approx(1 - graded_auc(scores, targets))


def test_perfect_worthless_and_undefined():
    assert graded_auc(np.array([0.1, 0.5, 0.9]), np.array([0.0, 0.5, 1.0])) == 1
    assert graded_auc(np.zeros(4), np.array([0, 1, 0, 1])) == 0.5
    assert np.isnan(graded_auc(np.array([0.1, 0.2]), np.array([1, 1])))


def noisy(queries=150, pairs=4):
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 3, queries * pairs) / 2
    good = targets + generator.normal(0, 0.5, len(targets))
    names = [f"q{pair // pairs}" for pair in range(len(targets))]
    return targets, good, good + generator.normal(0, 1, len(targets)), names


def test_intervals_hold_the_value_and_the_difference_is_paired():
    targets, good, poor, queries = noisy()
    found = auc_intervals({"a": good, "b": poor}, targets, queries, difference=("a", "b"), samples=200)
    assert found["a"].value == graded_auc(good, targets)
    assert found["difference"].value == pytest.approx(found["a"].value - found["b"].value)
    for interval in found.values():
        assert interval.low < interval.value < interval.high
        assert interval.queries == 150
    assert found["difference"].excludes_zero
    same = auc_intervals({"a": good, "b": good.copy()}, targets, queries, difference=("a", "b"), samples=50)
    assert same["difference"] == (0, 0, 0, 150)


def test_queries_are_drawn_whole_and_by_seed():
    targets, good, poor, queries = noisy()
    one, again, other = (
        auc_intervals({"a": good, "b": poor}, targets, queries, difference=("a", "b"), samples=50, seed=seed)
        for seed in (0, 0, 1)
    )
    assert one == again
    assert one["a"] != other["a"]
    # One query repeated over all pairs has nothing to vary.
    alone = auc_intervals({"a": good, "b": poor}, targets, ["q"] * len(targets), difference=("a", "b"), samples=5)
    assert alone["a"].low == alone["a"].high == alone["a"].value
