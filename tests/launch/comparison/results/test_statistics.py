"""Intervals over queries with the spread over seeds beside them, and Holm's correction, against tables made by hand."""

import numpy as np
import pytest

from crops_jax.errors import InputError
from crops_jax.retrieval.intervals import bootstrap_mean
from launch.comparison.results.statistics import (
    differences,
    estimate,
    holm,
    minimum_samples,
    resampled_means,
    two_sided_p,
)


def test_holms_correction_by_hand():
    """0.01 x 4, 0.02 x 3, 0.03 x 2 and 0.04 x 1, in this order; no value falls below an earlier one."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.6, 0.001]) == pytest.approx([1.0, 1.0, 0.003])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_equal_p_values_have_equal_corrections():
    assert holm([0.01, 0.01, 0.01]) == pytest.approx([0.03, 0.03, 0.03])


def test_resampled_means_are_those_of_the_librarys_intervals():
    generator = np.random.default_rng(3)
    values = generator.random((37, 2))
    means = resampled_means(values, samples=501, seed=4)
    for column in (0, 1):
        expected = bootstrap_mean(values[:, column], seed=4, samples=501)
        low, high = np.quantile(means[:, column], [0.025, 0.975])
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_resampled_means_by_hand():
    """Each sample draws queries with replacement; the mean of a sample is that of the drawn values."""
    values = np.array([[1.0], [2.0], [4.0]])
    drawn = np.random.default_rng(0).integers(0, 3, size=(5, 3))
    expected = [[np.mean([values[query, 0] for query in row])] for row in drawn]
    np.testing.assert_allclose(resampled_means(values, samples=5), expected, rtol=0, atol=1e-12)


def test_p_values_by_hand():
    """Of 9 means, 2 are at most 0 and 7 at least 0: 2 x (2 + 1) / (9 + 1)."""
    assert two_sided_p(np.array([-1.0, -2.0, 1, 2, 3, 4, 5, 6, 7])) == pytest.approx(0.6)
    assert two_sided_p(np.full(99, 0.5)) == pytest.approx(0.02)
    assert two_sided_p(np.full(99, -0.5)) == pytest.approx(0.02)
    assert two_sided_p(np.zeros(99)) == 1.0


def test_an_estimate_is_the_mean_of_seeds_and_queries_with_the_seeds_spread():
    """Seed means 0.25 and 0.75: their mean is 0.5, their sample standard deviation 0.5 / sqrt(2)."""
    found = estimate(np.array([[0.0, 0.5], [1.0, 0.5]]), np.array([0.5, 0.5, 0.5]))
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
    assert (found.queries, found.seeds) == (2, 2)
    assert found.seed_spread == pytest.approx(0.5 / np.sqrt(2))
    assert estimate(np.array([[0.0, 0.5]]), np.array([0.25])).seed_spread is None


def test_a_difference_that_every_query_has_is_shown_and_its_sign_is_the_verdict():
    reference = np.linspace(0, 0.5, 20)[None]
    higher, lower = reference + 0.25, reference - 0.25
    better, worse, equal = differences(
        [(np.concatenate([higher, higher]), reference), (lower, reference), (reference, reference)], samples=400
    )
    assert (better.verdict, worse.verdict, equal.verdict) == ("better", "worse", "no difference shown")
    assert better.estimate.value == pytest.approx(0.25)
    assert (better.low_holm, better.high_holm) == pytest.approx((0.25, 0.25))
    assert better.estimate.seed_spread == pytest.approx(0)
    assert worse.estimate.value == pytest.approx(-0.25)
    assert better.p == pytest.approx(2 / 401)
    assert better.p_holm == pytest.approx(3 * 2 / 401)
    assert (equal.p, equal.p_holm) == (1.0, 1.0)


def test_the_correction_takes_back_what_one_of_many_differences_shows_alone():
    """29 of 40 queries gain 1 and 11 lose 1: alone its interval excludes 0, among 60 like it no longer."""
    pair = (np.where(np.arange(40) < 29, 1.0, 0.0)[None], np.where(np.arange(40) < 29, 0.0, 1.0)[None])
    [alone] = differences([pair], samples=4000)
    assert alone.verdict == "better"
    assert alone.low_holm > 0
    among = differences([pair] * 60, samples=4000)
    assert {one.verdict for one in among} == {"no difference shown"}
    assert all(one.estimate == alone.estimate for one in among)
    assert all(one.low_holm <= alone.low_holm and one.high_holm >= alone.high_holm for one in among)


def test_pairs_of_different_query_sets_are_resampled_apart():
    few, many = np.array([[0.0, 1.0, 1.0]]), np.linspace(0, 1, 30)[None]
    found = differences([(few, np.zeros((1, 3))), (many, np.zeros((2, 30)))], samples=500)
    for one, values in zip(found, (few, many), strict=True):
        expected = bootstrap_mean(values[0], samples=500)
        assert (one.estimate.low, one.estimate.high) == pytest.approx((expected.low, expected.high))


def test_a_few_queries_give_no_verdict_however_equal_they_are():
    """The bootstrap of one query has no width. Such a difference must not make room for others in the correction."""
    one, many = (np.ones((1, 1)), np.zeros((1, 1))), (np.ones((1, 20)), np.zeros((1, 20)))
    alone, among = differences([one, many], samples=400)
    assert (alone.verdict, alone.p_holm) == ("too few queries", 1.0)
    assert (alone.estimate.low, alone.estimate.high) == (1.0, 1.0)
    assert (among.verdict, among.p_holm) == ("better", pytest.approx(2 * 2 / 401))


def test_too_few_samples_for_so_many_differences_are_refused():
    pair = (np.ones((1, 20)), np.zeros((1, 20)))
    assert minimum_samples(10) == 400
    assert [one.verdict for one in differences([pair] * 10, samples=400)] == ["better"] * 10
    with pytest.raises(InputError, match="at least 400"):
        differences([pair] * 10, samples=399)


def test_other_queries_are_not_paired():
    with pytest.raises(ValueError, match="same ones"):
        differences([(np.ones((1, 4)), np.zeros((1, 5)))], samples=100)
