import math

import numpy as np
import pytest

from crops_jax.retrieval.intervals import bootstrap_mean, paired_difference


def test_the_interval_is_that_of_the_mean_in_the_normal_limit():
    values = np.random.default_rng(0).normal(0.5, 0.2, 4000)
    interval = bootstrap_mean(values, samples=4000)
    half = 1.96 * values.std() / math.sqrt(values.size)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=half / 10)
    assert interval.high == pytest.approx(values.mean() + half, abs=half / 10)
    assert interval.queries == 4000


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(1).random(50)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_a_paired_difference_is_narrower_than_two_intervals_when_queries_differ_more_than_systems():
    hard = np.random.default_rng(2).random(200)
    difference = paired_difference(hard + 0.02, hard)
    assert (difference.low, difference.high) == (pytest.approx(0.02), pytest.approx(0.02))
    assert difference.excludes_zero
    assert not paired_difference(hard, hard).excludes_zero


def test_no_queries_is_no_number():
    interval = bootstrap_mean([])
    assert math.isnan(interval.value)
    assert interval.as_json() == {"value": None, "low": None, "high": None, "queries": 0}
    assert not interval.excludes_zero


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="same queries"):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="one number for each query"):
        bootstrap_mean(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_mean([1.0], confidence=1.0)
