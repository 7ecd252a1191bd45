import numpy as np
import pytest

from data.world.behaviour.clicks import attractiveness, click_probability, examination, likes, watch_seconds


def test_examination_falls_with_position():
    np.testing.assert_allclose(examination(np.array([1, 2, 4]), exponent=1.0), [1, 0.5, 0.25])
    np.testing.assert_allclose(examination(np.array([1, 4]), exponent=0.5), [1, 0.5])
    np.testing.assert_array_equal(examination(np.arange(1, 5), exponent=0.0), 1)


def test_attractiveness_of_each_grade_by_hand():
    # The values are .1 + .9 * (0, 1, 3, 7) / 7.
    expected = [0.1, 0.2285714286, 0.4857142857, 1.0]
    np.testing.assert_allclose(attractiveness(np.arange(4), noise=0.1), expected, rtol=1e-9)


def test_click_probability_is_the_product():
    # With exponent 1, grade 2 at position 2 has the probability .5 * .4857, and grade 3 at position 3 has 1/3.
    probabilities = click_probability(np.array([2, 3]), np.array([2, 3]), exponent=1.0, noise=0.1)
    np.testing.assert_allclose(probabilities, [0.2428571429, 1 / 3], rtol=1e-9)


def test_watch_time_has_the_median_of_its_fit_and_grows_with_quality():
    zero = np.zeros(4)
    np.testing.assert_array_equal(watch_seconds(np.arange(4), zero, zero, spread=0.8), [3, 8, 25, 50])
    better = watch_seconds(np.array([2]), np.array([1.0]), np.array([0.0]), spread=0.8)
    assert better[0] == pytest.approx(25 * np.exp(0.3), abs=0.05)


def test_likes_grow_with_fit():
    assert likes(np.arange(4), np.full(4, 0.03)).tolist() == [False, False, True, True]
