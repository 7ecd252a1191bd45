"""Calibration of scores as probabilities: logistic regression, temperature and bias, calibration error."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The values of alpha in the sweep that mining reports. Alpha is the threshold that theta must exceed."""

_RIDGE = 1.0
_NEWTON_STEPS = 50
_MIN_SHARPNESS, _MAX_SHARPNESS = 0.02, 50.0
_MAX_BIAS = 20.0


def expected_calibration_error(
    probabilities: Float[np.ndarray, "pairs"],
    targets: Float[np.ndarray, "pairs"],
    *,
    weights: Float[np.ndarray, "pairs"] | None = None,
    bins: int = 15,
) -> float:
    """Returns the expected calibration error: sum over bins of (share of pairs) |mean probability - mean target|.

    It is equation 3 of Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Args:
      probabilities: in [0, 1].
      targets: in [0, 1]; graded targets are soft targets.
      weights: the weight of each pair in shares and means; None for equal weights.
      bins: the number of bins of equal width; a border belongs to the lower bin.

    Returns:
      A number in [0, 1]; 0 without pairs.
    """
    probabilities, targets = np.asarray(probabilities, np.float64), np.asarray(targets, np.float64)
    weights = np.ones(len(probabilities)) if weights is None else np.asarray(weights, np.float64)
    bin_of = np.clip(np.ceil(probabilities * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights * (probabilities - targets), minlength=bins)
    total = weights.sum()
    return float(np.abs(gaps).sum() / total) if total > 0 else 0.0


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


class Scaling(NamedTuple):
    """The calibration of a logit z: the probability is sigmoid(z / temperature + bias)."""

    temperature: float = 1.0
    bias: float = 0.0

    def probabilities(self, logits: Float[np.ndarray, "pairs"]) -> Float64[np.ndarray, "pairs"]:
        """Returns the calibrated probabilities."""
        return sigmoid(np.asarray(logits, np.float64) / self.temperature + self.bias)


UNSCALED = Scaling()
"""The scaling of logits that are not calibrated."""


def fit_scaling(
    logits: Float[np.ndarray, "pairs"],
    targets: Float[np.ndarray, "pairs"],
    *,
    weights: Float[np.ndarray, "pairs"] | None = None,
) -> Scaling:
    """Returns the scaling with the minimum cross-entropy to the targets (Platt 1999, "Probabilistic Outputs for SVMs").

    The temperature (Guo et al. 2017) corrects logits that are too sure of themselves. The bias corrects another share
    of relevant pairs than that of the training pairs.

    Args:
      logits: the logits before calibration.
      targets: in [0, 1].
      weights: the weight of the cross-entropy of each pair; None for equal weights.

    Returns:
      A temperature in [1/50, 50] and a bias in [-20, 20].
    """
    from scipy.optimize import minimize  # here, because loading it takes longer than all else that mining loads

    z, y = np.asarray(logits, np.float64), np.asarray(targets, np.float64)
    w = np.ones(len(z)) if weights is None else np.asarray(weights, np.float64)
    if not w.sum() > 0:
        return UNSCALED
    w = w / w.sum()

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        logit = x[0] * z + x[1]
        error = w * (sigmoid(logit) - y)
        return float((w * (np.logaddexp(0, logit) - y * logit)).sum()), np.array([error @ z, error.sum()])

    limits = [(_MIN_SHARPNESS, _MAX_SHARPNESS), (-_MAX_BIAS, _MAX_BIAS)]
    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000}
    result = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=limits, options=options)
    return Scaling(float(1 / result.x[0]), float(result.x[1]))
