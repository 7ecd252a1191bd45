"""Calibration against definitions written out here."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crops_jax.discriminator import alpha_sweep
from crops_jax.discriminator.calibration import (
    expected_calibration_error,
    fit_logistic_regression,
    fit_scaling,
    sigmoid,
)


def test_a_weight_stands_for_repeated_pairs():
    p, y, times = np.array([0.2, 0.4, 0.9]), np.array([0, 1, 1]), np.array([3, 1, 2])
    repeated = expected_calibration_error(np.repeat(p, times), np.repeat(y, times), bins=2)
    assert expected_calibration_error(p, y, weights=times, bins=2) == pytest.approx(repeated)


def test_calibration_error_by_hand():
    # Two bins: (0, .5] holds .2 and .4 with targets 0 and 1; (.5, 1] holds .9 with target 1.
    error = expected_calibration_error(np.array([0.2, 0.4, 0.9]), np.array([0, 1, 1]), bins=2)
    assert error == pytest.approx(2 / 3 * abs(0.3 - 0.5) + 1 / 3 * abs(0.9 - 1))
    assert expected_calibration_error(np.array([]), np.array([])) == 0


def test_borders_belong_to_the_lower_bin():
    # .5 with .1 in one bin: their errors cancel. In separate bins they would not.
    assert expected_calibration_error(np.array([0.5, 0.1]), np.array([0.4, 0.2]), bins=2) == pytest.approx(0)
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1), st.integers(1, 20))
def test_calibration_error_is_between_the_mean_s_error_and_one(pairs, bins):
    p, y = np.array(pairs).T
    error = expected_calibration_error(p, y, bins=bins)
    assert abs(p.mean() - y.mean()) - 1e-9 <= error <= 1 + 1e-9


def test_alpha_is_exclusive_in_the_sweep():
    assert alpha_sweep(np.array([0.3, 0.6, 0.61]), alphas=(0.3, 0.6)) == [
        {"alpha": 0.3, "passing": 2, "share": 0.666667},
        {"alpha": 0.6, "passing": 1, "share": 0.333333},
    ]
    assert alpha_sweep(np.array([]), alphas=(0.5,)) == [{"alpha": 0.5, "passing": 0, "share": 0.0}]


def test_logistic_regression_recovers_soft_targets():
    features = np.random.default_rng(0).uniform(size=(50_000, 2))
    targets = sigmoid(features @ [3.0, -2.0] + 0.5)
    np.testing.assert_allclose(fit_logistic_regression(features, targets), [3, -2, 0.5], atol=0.01)


def test_separable_classes_give_finite_weights():
    features = np.linspace(0, 1, 50)[:, None]
    weights = fit_logistic_regression(features, (features[:, 0] > 0.5).astype(float))
    assert np.isfinite(weights).all()
    assert weights[0] > 1


@pytest.mark.parametrize(("temperature", "bias"), [(0.25, 0.0), (1.0, -2.0), (4.0, 1.5)])
def test_temperature_and_bias_are_recovered(temperature, bias):
    logits = np.random.default_rng(1).normal(scale=3, size=4000)
    scaling = fit_scaling(logits, sigmoid(logits / temperature + bias))
    assert scaling == pytest.approx((temperature, bias), rel=1e-4, abs=1e-4)
    np.testing.assert_allclose(scaling.probabilities(logits), sigmoid(logits / temperature + bias), atol=1e-4)


def test_weights_stand_for_repeated_pairs():
    logits, targets = np.array([-2.0, -1.0, 1.0, 2.0, 0.5]), np.array([0.0, 1.0, 0.0, 1.0, 1.0])
    repeated = np.array([0, 0, 0, 1, 2, 2, 3, 4])
    weights = np.bincount(repeated).astype(float)
    expected = fit_scaling(logits[repeated], targets[repeated])
    assert fit_scaling(logits, targets, weights=weights) == pytest.approx(expected, rel=1e-5)
    # The mean probability equals the weighted share of relevant pairs: the bias sees to that.
    mean = np.average(expected.probabilities(logits), weights=weights)
    assert mean == pytest.approx(np.average(targets, weights=weights), abs=1e-6)


def test_the_scaling_stays_finite_when_every_logit_is_right_or_wrong():
    logits = np.array([-2.0, 3.0])
    right, wrong = fit_scaling(logits, np.array([0.0, 1.0])), fit_scaling(logits, np.array([1.0, 0.0]))
    assert 1 / 50 <= right.temperature < 1 < wrong.temperature <= 50
    assert fit_scaling(logits, np.array([0.0, 0.0])).bias >= -20
    assert fit_scaling(np.zeros(0), np.zeros(0)) == (1.0, 0.0)
