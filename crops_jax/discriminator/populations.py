"""The populations of pairs on which a discriminator is tested, weighted as their pairs occur among the candidates.

A discriminator that was fitted and calibrated on a judged pool alone can look well calibrated and yet accept a large
share of arbitrary pairs. So its pairs come from several populations: the pool (judged or clicked documents), documents
of the feed, and documents drawn at random. Calibration and calibration error are those of the mixture in which mining
meets these populations.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int8

from crops_jax.discriminator.calibration import alpha_sweep, expected_calibration_error

NAMES = ("pool", "feed", "random")
"""The names of the populations. pool: documents that were judged, or clicked and not clicked, for their query. feed:
documents of the recommendation feed, drawn as often as they were viewed. random: documents drawn uniformly."""

POOL, FEED, RANDOM = range(len(NAMES))

_MIN_POOL_SHARE = 0.1


class Populations(NamedTuple):
    """The population of each pair, and how often each population occurs among the candidates that are scored.

    index: the position in NAMES of each pair.
    occurrences: the number of candidates that mining meets in each population, in the order of NAMES. Random documents
      are no candidates, so their number is 0.
    """

    index: Int8[np.ndarray, "pairs"]
    occurrences: tuple[int, int, int]

    @classmethod
    def only_pool(cls, pairs: int) -> "Populations":
        """Returns the populations of pairs that all belong to the pool."""
        return cls(np.full(pairs, POOL, np.int8), (pairs, 0, 0))

    def of(self, chosen: Any) -> "Populations":
        """Returns the populations of some pairs, selected by a mask, a slice or indices."""
        return self._replace(index=self.index[chosen])

    def weights(self) -> Float64[np.ndarray, "pairs"]:
        """Returns the weight of each pair, so that every population has the weight of its occurrences.

        The pool has at least a tenth of the weight: without it, a log with a long feed would be calibrated on
        irrelevant pairs alone. A population without pairs here takes no part. Weights have the mean 1.
        """
        counts = np.bincount(self.index, minlength=len(NAMES)).astype(np.float64)
        shares = np.where(counts > 0, np.asarray(self.occurrences, np.float64), 0.0)
        if counts[POOL]:
            others = shares.sum() - shares[POOL]
            shares[POOL] = max(shares[POOL], others * _MIN_POOL_SHARE / (1 - _MIN_POOL_SHARE))
        if shares.sum() == 0:
            return np.ones(len(self.index))
        of_pair = shares / np.maximum(counts, 1)
        return of_pair[self.index] * len(self.index) / shares.sum()


def calibration_report(
    before: Float[np.ndarray, "pairs"],
    after: Float[np.ndarray, "pairs"],
    targets: Float[np.ndarray, "pairs"],
    populations: Populations,
    measured: Bool[np.ndarray, "pairs"],
) -> dict[str, Any]:
    """Returns the calibration of a discriminator on pairs that neither trained nor calibrated it.

    Args:
      before, after: the probabilities without and with the calibration.
      targets: in [0, 1].
      populations: the population of each pair.
      measured: the mask of the pairs to measure on.

    Returns:
      ece_before and ece_after: the expected calibration errors in the mixture of the candidates;
      by_population: for each population its number of pairs, its mean target and its own calibration error;
      random_pairs_passing: for each alpha the share of the random pairs whose probability exceeds it; None if there
      are no such pairs.
    """
    mixture = populations.of(measured)
    before, after, targets = before[measured], after[measured], targets[measured]
    weights = mixture.weights()
    by_population = {}
    for at, name in enumerate(NAMES):
        here = mixture.index == at
        if here.any():
            by_population[name] = {
                "pairs": int(here.sum()),
                "mean_target": round(float(targets[here].mean()), 6),
                "ece_after": round(expected_calibration_error(after[here], targets[here]), 6),
            }
    random = after[mixture.index == RANDOM]
    return {
        "ece_before": round(expected_calibration_error(before, targets, weights=weights), 6),
        "ece_after": round(expected_calibration_error(after, targets, weights=weights), 6),
        "by_population": by_population,
        "random_pairs_passing": {str(row["alpha"]): row["share"] for row in alpha_sweep(random)}
        if len(random)
        else None,
    }
