"""The clicks and watch times of users. Each probability is one function, whose docstring states the formula.

Clicks follow the position-based model (Richardson, Dominowska and Ragno 2007; Craswell et al. 2008): a user clicks a
document that the user examines and finds attractive. Examination depends only on the position; attraction depends only
on the document and the need. The attractiveness of a grade follows the counterfactual click simulations that use the
gain of Chapelle et al. 2009.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

_WATCH_MEDIAN_SECONDS = np.array([3.0, 8.0, 25.0, 50.0])
_QUALITY_EFFECT = 0.3
_LIKE_PROBABILITIES = np.array([0.005, 0.02, 0.06, 0.15])


def examination(positions: Int[np.ndarray, "*n"], *, exponent: float) -> Float[np.ndarray, "*n"]:
    """Returns P(examined | position k) = k ** -exponent; the first position is 1."""
    return np.asarray(positions, np.float64) ** -exponent


def attractiveness(
    grades: Int[np.ndarray, "*n"], *, noise: float, ceiling: float = 1.0, max_grade: int = 3
) -> Float[np.ndarray, "*n"]:
    """Returns P(clicked | examined, grade g) = noise + (ceiling - noise) (2**g - 1) / (2**max_grade - 1)."""
    return noise + (ceiling - noise) * (2.0 ** np.asarray(grades) - 1) / (2.0**max_grade - 1)


def click_probability(
    positions: Int[np.ndarray, "*n"],
    grades: Int[np.ndarray, "*n"],
    *,
    exponent: float,
    noise: float,
    ceiling: float = 1.0,
) -> Float[np.ndarray, "*n"]:
    """Returns P(clicked | position, grade) = P(examined | position) P(clicked | examined, grade)."""
    return examination(positions, exponent=exponent) * attractiveness(grades, noise=noise, ceiling=ceiling)


def watch_seconds(
    fit: Int[np.ndarray, "*n"], quality: Float[np.ndarray, "*n"], normals: Float[np.ndarray, "*n"], *, spread: float
) -> Float[np.ndarray, "*n"]:
    """Returns log-normally distributed watch times in seconds, rounded to tenths.

    The median is 3, 8, 25 or 50 seconds for fit 0 to 3, times exp(.3 quality).

    Args:
      fit: how well each document fits its user, 0 to 3.
      quality: the quality of each document (standard normal).
      normals: one standard normal number for each document.
      spread: the standard deviation of the logarithm of a watch time.
    """
    return np.round(_WATCH_MEDIAN_SECONDS[fit] * np.exp(_QUALITY_EFFECT * quality + spread * normals), 1)


def likes(fit: Int[np.ndarray, "*n"], uniforms: Float[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n"]:
    """Returns whether each watched document is also liked; the probability is .005, .02, .06, .15 for fit 0 to 3.

    Args:
      fit: how well each document fits its user, 0 to 3.
      uniforms: one number in [0, 1) for each document.
    """
    return uniforms < _LIKE_PROBABILITIES[fit]
