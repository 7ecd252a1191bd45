"""Calibration against definitions written out here."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crops_jax.discriminator import alpha_sweep
from crops_jax.discriminator.calibration import (
    expected_calibration_error,
    fit_logistic_regression,
    fit_temperature,
    sigmoid,
)


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


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_temperature_is_recovered(temperature):
    logits = np.random.default_rng(1).normal(scale=3, size=4000)
    assert fit_temperature(logits, sigmoid(logits / temperature)) == pytest.approx(temperature, rel=1e-6)


def test_temperature_stays_finite_when_every_logit_is_right():
    logits = np.array([-2.0, 3.0])
    assert fit_temperature(logits, np.array([0.0, 1.0])) == pytest.approx(1 / 50)
    assert fit_temperature(logits, np.array([1.0, 0.0])) == pytest.approx(50)
