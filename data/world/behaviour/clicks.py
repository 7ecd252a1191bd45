"""The clicks and watch times of users: the position-based model, each probability one function with its formula.

Position-based model (Richardson, Dominowska and Ragno 2007; Craswell et al. 2008): a click is an examination and an
attraction, the first depends on the position alone, the second on the document and the need alone. Attractiveness by
grade is that of the counterfactual click simulations after Chapelle et al. 2009.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

_WATCH_MEDIAN_SECONDS = np.array([3.0, 8.0, 25.0, 50.0])
_QUALITY_EFFECT = 0.3
_LIKE_CHANCES = np.array([0.005, 0.02, 0.06, 0.15])


def examination(positions: Int[np.ndarray, "*n"], *, exponent: float) -> Float[np.ndarray, "*n"]:
    """P(examined | position k) = k ** -exponent, positions from 1."""
    return np.asarray(positions, np.float64) ** -exponent


def attractiveness(grades: Int[np.ndarray, "*n"], *, noise: float, max_grade: int = 3) -> Float[np.ndarray, "*n"]:
    """P(clicked | examined, grade g) = noise + (1 - noise) (2**g - 1) / (2**max_grade - 1)."""
    return noise + (1 - noise) * (2.0 ** np.asarray(grades) - 1) / (2.0**max_grade - 1)


def click_probability(
    positions: Int[np.ndarray, "*n"], grades: Int[np.ndarray, "*n"], *, exponent: float, noise: float
) -> Float[np.ndarray, "*n"]:
    """P(clicked | position, grade) = P(examined | position) P(clicked | examined, grade)."""
    return examination(positions, exponent=exponent) * attractiveness(grades, noise=noise)


def watch_seconds(
    fit: Int[np.ndarray, "*n"], quality: Float[np.ndarray, "*n"], normals: Float[np.ndarray, "*n"], *, spread: float
) -> Float[np.ndarray, "*n"]:
    """Log-normal: median by how well the document fits (0 to 3), times exp(.3 quality); in tenths of a second.

    Args:
      normals: standard normal draws.
      spread: standard deviation of the logarithm.
    """
    return np.round(_WATCH_MEDIAN_SECONDS[fit] * np.exp(_QUALITY_EFFECT * quality + spread * normals), 1)


def likes(fit: Int[np.ndarray, "*n"], uniforms: Float[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n"]:
    """Returns whether users who watched also like: the probability is .005, .02, .06, .15 for fit 0 to 3."""
    return uniforms < _LIKE_CHANCES[fit]
