"""From scores to probabilities: logistic regression on soft targets, temperature, calibration error."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The thresholds of the sweep that mining reports."""

_RIDGE = 1.0
_NEWTON_STEPS = 50
_LEAST_SHARPNESS, _GREATEST_SHARPNESS = 0.02, 50.0


def expected_calibration_error(
    probabilities: Float[np.ndarray, "pairs"], targets: Float[np.ndarray, "pairs"], *, bins: int = 15
) -> float:
    """Mean distance between what is promised and what is kept (Guo et al. 2017, "On Calibration of Modern Neural
    Networks", eq. 3): sum over bins of (share of pairs) |mean probability - mean target|.

    Args:
      probabilities: in [0, 1].
      targets: in [0, 1]; graded ones are soft targets.
      bins: of equal width; a border belongs to the lower bin.

    Returns:
      A number in [0, 1]; 0 without pairs.
    """
    probabilities, targets = np.asarray(probabilities, np.float64), np.asarray(targets, np.float64)
    bin_of = np.clip(np.ceil(probabilities * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, probabilities - targets, minlength=bins)
    return float(np.abs(gaps).sum() / max(len(probabilities), 1))


def alpha_sweep(scores: Float[np.ndarray, "pairs"], *, alphas: Sequence[float] = ALPHAS) -> list[dict[str, float]]:
    """How many candidate pairs pass theta > alpha, and which share of them, for each alpha."""
    scores = np.asarray(scores)
    passing = [int((scores > alpha).sum()) for alpha in alphas]
    return [
        {"alpha": alpha, "passing": number, "share": round(number / max(len(scores), 1), 6)}
        for alpha, number in zip(alphas, passing, strict=True)
    ]


def sigmoid(logits: Float64[np.ndarray, "pairs"]) -> Float64[np.ndarray, "pairs"]:
    """1 / (1 + e^-z) without overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def fit_logistic_regression(
    features: Float64[np.ndarray, "pairs features"], targets: Float64[np.ndarray, "pairs"]
) -> Float64[np.ndarray, "features_and_1"]:
    """Weights w (the last is the bias) of the least cross-entropy to soft targets, by Newton's method.

    A ridge of 1/2 |w|^2 on all but the bias keeps them finite when the classes can be separated.
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
        # A full Newton step may overshoot where p saturates.
        step *= min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        weights -= step
        if np.abs(step).max() < 1e-10:
            break
    return weights


def fit_temperature(logits: Float64[np.ndarray, "pairs"], targets: Float64[np.ndarray, "pairs"]) -> float:
    """The T of the least cross-entropy of sigmoid(logits / T) to the targets, in [1/50, 50].

    The cross-entropy is convex in 1/T, so its derivative has one zero, found by bisection.
    """
    low, high = _LEAST_SHARPNESS, _GREATEST_SHARPNESS
    for _ in range(60):
        middle = (low + high) / 2
        if ((sigmoid(middle * logits) - targets) * logits).sum() < 0:
            low = middle
        else:
            high = middle
    return 2 / (low + high)
