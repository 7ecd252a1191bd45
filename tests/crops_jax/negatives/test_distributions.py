"""The probabilities of each sampler, worked out by hand, and the frequencies of its draws."""

import itertools

import numpy as np
import pytest

from crops_jax.negatives import SimAns, TriSampler, UniformSampler
from crops_jax.negatives.gumbel_draws import greatest_positions
from tests.crops_jax.negatives.cases import assert_frequencies, candidates, many_draws, normalised


def probabilities(log_weights) -> np.ndarray:
    return normalised(np.exp(np.float64(log_weights[0])))


def without_replacement(weights, size) -> dict[tuple[int, ...], float]:
    """The probability of each order of `size` draws: each is proportional to its weight among those that are left."""
    found = {}
    for places in itertools.permutations(range(len(weights)), size):
        left, chance = sum(weights), 1.0
        for place in places:
            chance *= weights[place] / left
            left -= weights[place]
        found[places] = chance
    return found


def test_uniform_is_over_the_nearest_less_the_positives():
    # By rank: 3, 0 (a positive), 4, 1, 5; place 2 is padding. The nearest four less the positive: 3, 4 and 1.
    one = candidates([5.0, 2.0, 99.0, 7.0, 3.0, 1.0], positives=[0], padding=[2])
    sampler = UniformSampler(top=4)
    np.testing.assert_allclose(probabilities(sampler.log_weights(one)), [0, 1 / 3, 0, 1 / 3, 1 / 3, 0])
    assert_frequencies(many_draws(sampler, one, count=1)[:, 0], [0, 1 / 3, 0, 1 / 3, 1 / 3, 0])
    assert (many_draws(sampler, one, count=4, times=50) == -1).sum() == 50


def test_uniform_counts_equal_scores_in_their_order():
    one = candidates([1.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(probabilities(UniformSampler(top=2).log_weights(one)), [0.5, 0.5, 0, 0])


def test_simans_by_hand():
    # s - s+ - b is 2, 0, -1 and 1; with a = ln 2, p is proportional to 2^-4, 2^0, 2^-1 and 2^-1: 1, 16, 8, 8 of 33.
    one = candidates([4.5, 2.5, 1.5, 3.5, 2.5], positive=3.0, positives=[4])
    sampler = SimAns(a=float(np.log(2)), b=-0.5)
    expected = np.array([1, 16, 8, 8, 0]) / 33
    np.testing.assert_allclose(probabilities(sampler.log_weights(one)), expected, rtol=1e-5)
    assert_frequencies(many_draws(sampler, one, count=1)[:, 0], expected)


def test_draws_without_replacement_have_the_probabilities_of_their_orders():
    one = candidates([4.5, 2.5, 1.5, 3.5], positive=3.0)
    found = many_draws(SimAns(a=float(np.log(2)), b=-0.5), one, count=2)
    expected = without_replacement([1, 16, 8, 8], 2)
    # 16 first, then 8: 16/33 * 8/17.
    assert expected[1, 2] == pytest.approx(16 / 33 * 8 / 17)
    numbers = {places: number for number, places in enumerate(expected)}
    assert_frequencies(np.array([numbers[places] for places in map(tuple, found.tolist())]), list(expected.values()))


# The first stage: s - s+ is 0, 2, -2 and 4 with a scale of 4 / ln 2, so p is proportional to 1, 1/2, 1/2 and 1/16.
TRIANGLE = {"positive": 1.0, "score": [1.0, 3.0, -1.0, 5.0]}
SCALE = float(4 / np.log(2))
FIRST = [16, 8, 8, 1]


def test_the_first_stage_of_trisampler_by_hand():
    one = candidates(**TRIANGLE)
    found = probabilities(TriSampler(scale=SCALE).log_weights(one))
    np.testing.assert_allclose(found, np.array(FIRST) / 33, rtol=1e-5)
    # The published scale is 4: exp(0), exp(-1), exp(-1) and exp(-4).
    expected = normalised(np.exp([0.0, -1.0, -1.0, -4.0]))
    np.testing.assert_allclose(probabilities(TriSampler().log_weights(one)), expected, rtol=1e-5)


def test_the_second_stage_of_trisampler_by_hand():
    # s(d+, d) - s(q, d) is 3, -1, 1 and 0: among all four, p is 3/4, 0, 1/4 and 0.
    one = candidates(**TRIANGLE, to_positive=[4.0, 2.0, 0.0, 5.0])
    sampler = TriSampler(first_stage=4, scale=SCALE)
    np.testing.assert_allclose(probabilities(sampler.second_log_weights(one)), [0.75, 0, 0.25, 0])
    assert_frequencies(many_draws(sampler, one, count=1)[:, 0], [0.75, 0, 0.25, 0])


def test_trisampler_falls_back_to_the_first_stage():
    one = candidates(**TRIANGLE, to_positive=[0.0, 2.0, -1.0, 4.0])
    found = many_draws(TriSampler(first_stage=4, scale=SCALE), one, count=1)[:, 0]
    assert_frequencies(found, normalised(FIRST))


def test_trisampler_draws_the_rest_by_the_first_stage():
    # Only place 2 has a ReLU above 0. It is always first; the second one is drawn among the others.
    one = candidates(**TRIANGLE, to_positive=[0.0, 2.0, 0.0, 4.0])
    found = many_draws(TriSampler(first_stage=4, scale=SCALE), one, count=2)
    assert (found[:, 0] == 2).all()
    assert_frequencies(found[:, 1], np.array([16, 8, 0, 1]) / 25)


def test_both_stages_of_trisampler_together():
    """The sum over all pairs that the first stage may leave, each with the second stage's choice among the two."""
    one = candidates(**TRIANGLE, to_positive=[4.0, 2.0, 0.0, 5.0])
    nearer = np.array([3, 0, 1, 0])
    expected = np.zeros(4)
    for places, chance in without_replacement(FIRST, 2).items():
        places = list(places)
        weights = nearer[places] if nearer[places].any() else np.array(FIRST)[places]
        expected[places] += chance * normalised(weights)
    # Places 1 and 3 are drawn only when the first stage leaves just these two.
    assert expected[0] > 0.6
    assert 0 < expected[3] < expected[1] < 0.05
    assert_frequencies(many_draws(TriSampler(first_stage=2, scale=SCALE), one, count=1)[:, 0], expected)


def test_weights_far_below_each_other_are_told_apart():
    # All weights of a row underflow; a constant of the row is taken off first.
    one = candidates([1e3, 1e3 + 1, -3e3], positive=0.0)
    log_weights = np.float64(SimAns(a=1e-3).log_weights(one)[0])
    found = many_draws(SimAns(a=1e-3), one, count=1)[:, 0]
    assert log_weights.max() < -900
    assert_frequencies(found, normalised(np.exp(log_weights - log_weights.max())))


def test_greatest_positions_of_infinite_keys_are_missing():
    keys = np.float32([[1, -np.inf, 3], [-np.inf, -np.inf, -np.inf]])
    np.testing.assert_array_equal(greatest_positions(keys, count=2), [[2, 0], [-1, -1]])
    np.testing.assert_array_equal(greatest_positions(keys, count=4), [[2, 0, -1, -1], [-1] * 4])
