"""Calibration of scores as probabilities: logistic regression on soft targets, temperature, calibration error."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The values of alpha in the sweep that mining reports. Alpha is the threshold that theta must exceed."""

_RIDGE = 1.0
_NEWTON_STEPS = 50
_MIN_SHARPNESS, _MAX_SHARPNESS = 0.02, 50.0


def expected_calibration_error(
    probabilities: Float[np.ndarray, "pairs"], targets: Float[np.ndarray, "pairs"], *, bins: int = 15
) -> float:
    """Returns the expected calibration error: sum over bins of (share of pairs) |mean probability - mean target|.

    It is equation 3 of Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Args:
      probabilities: in [0, 1].
      targets: in [0, 1]; graded targets are soft targets.
      bins: the number of bins of equal width; a border belongs to the lower bin.

    Returns:
      A number in [0, 1]; 0 without pairs.
    """
    probabilities, targets = np.asarray(probabilities, np.float64), np.asarray(targets, np.float64)
    bin_of = np.clip(np.ceil(probabilities * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, probabilities - targets, minlength=bins)
    return float(np.abs(gaps).sum() / max(len(probabilities), 1))


def alpha_sweep(scores: Float[np.ndarray, "pairs"], *, alphas: Sequence[float] = ALPHAS) -> list[dict[str, float]]:
    """Returns for each alpha the number and the share of the candidate pairs with theta > alpha."""
    scores = np.asarray(scores)
    passing = [int((scores > alpha).sum()) for alpha in alphas]
    return [
        {"alpha": alpha, "passing": number, "share": round(number / max(len(scores), 1), 6)}
        for alpha, number in zip(alphas, passing, strict=True)
    ]


def sigmoid(logits: Float64[np.ndarray, "pairs"]) -> Float64[np.ndarray, "pairs"]:
    """Returns 1 / (1 + e^-z), computed without overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def fit_logistic_regression(
    features: Float64[np.ndarray, "pairs features"], targets: Float64[np.ndarray, "pairs"]
) -> Float64[np.ndarray, "features_and_1"]:
    """Returns the weights w with the minimum cross-entropy to soft targets, by Newton's method; the last is the bias.

    A ridge of 1/2 |w|^2 on all weights except the bias keeps them finite if the classes can be separated.
    """
    inputs = np.hstack([features, np.ones((len(features), 1))])
    ridge = np.full(inputs.shape[1], _RIDGE)
    ridge[-1] = 1e-6
    weights = np.zeros(inputs.shape[1])
    for _ in range(_NEWTON_STEPS):
        p = sigmoid(inputs @ weights)
        gradient = inputs.T @ (p - targets) + ridge * weights
        hessian = (inputs * (p * (1 - p))[:, None]).T @ inputs + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        # A full Newton step can overshoot if p saturates.
        step *= min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        weights -= step
        if np.abs(step).max() < 1e-10:
            break
    return weights


def fit_temperature(logits: Float64[np.ndarray, "pairs"], targets: Float64[np.ndarray, "pairs"]) -> float:
    """Returns the T in [1/50, 50] with the minimum cross-entropy of sigmoid(logits / T) to the targets.

    The cross-entropy is convex in 1/T, so its derivative has one zero, which bisection finds.
    """
    low, high = _MIN_SHARPNESS, _MAX_SHARPNESS
    for _ in range(60):
        middle = (low + high) / 2
        if ((sigmoid(middle * logits) - targets) * logits).sum() < 0:
            low = middle
        else:
            high = middle
    return 2 / (low + high)
