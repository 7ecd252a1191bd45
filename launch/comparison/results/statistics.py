"""Intervals over queries, the spread over seeds, and Holm's correction over a family of paired differences.

The queries and the seeds are two sources of variation. The bootstrap draws queries again; the value of a query is the
mean over the seeds. The spread over seeds stands beside the interval, because three seeds are too few to draw again.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from crops_jax.errors import InputError
from crops_jax.retrieval.intervals import bootstrap_draws

FEWEST_QUERIES = 20
"""The number of queries below which no verdict is given: the bootstrap of a few values is too narrow (of one value, it
has no width at all)."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The mean over queries of the mean over seeds, with its percentile interval over queries."""

    value: float
    low: float
    high: float
    queries: int
    seeds: int
    seed_spread: float | None
    """The sample standard deviation of the means of the seeds; None for one seed."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A system minus the reference on the same queries. Its interval is the one that Holm's correction asks for."""

    estimate: Estimate
    """The difference with its 95 % interval, not corrected. Its seed_spread is that of the system, not the reference.
    """
    p: float
    """The two-sided bootstrap p-value of no difference."""
    p_holm: float
    """The p-value after Holm's correction."""
    low_holm: float
    high_holm: float
    """The ends of the percentile interval at Holm's confidence for this difference."""
    low_all: float
    high_all: float
    """The ends of the percentile interval at the confidence 1 - alpha / m of all m differences, with which all of them
    hold together (Bonferroni). It does not depend on whether this difference excludes 0."""
    verdict: str
    """"better", "worse", "no difference shown", "too few queries", or RATES_DIFFER of the table."""

    @property
    def reversed(self) -> "Difference":
        """The difference the other way round. Its seed_spread is None, because it would be that of the other system."""
        turned = dataclasses.replace(
            self.estimate,
            value=-self.estimate.value,
            low=-self.estimate.high,
            high=-self.estimate.low,
            seed_spread=None,
        )
        verdict = {"better": "worse", "worse": "better"}.get(self.verdict, self.verdict)
        return dataclasses.replace(
            self,
            estimate=turned,
            low_holm=-self.high_holm,
            high_holm=-self.low_holm,
            low_all=-self.high_all,
            high_all=-self.low_all,
            verdict=verdict,
        )


def resampled_means(
    values: Float[np.ndarray, "queries columns"], *, samples: int, seed: int = 0
) -> Float[np.ndarray, "samples columns"]:
    """Returns the means of each column over queries that are drawn with replacement, the same ones for all columns.

    The draws are those of crops_jax.retrieval.intervals.bootstrap_mean with the same seed.

    Args:
      values: one row for each query.
      samples: the number of bootstrap samples.
      seed: the seed of the draws.
    """
    count = len(values)
    means = []
    for drawn in bootstrap_draws(count, samples=samples, seed=seed):
        offsets = count * np.arange(len(drawn))[:, None]
        # The number of times that each sample draws each query: one matrix product then serves all columns.
        times = np.bincount((drawn + offsets).ravel(), minlength=drawn.size).reshape(drawn.shape)
        means.append(times.astype(np.float64) @ values / count)
    return np.concatenate(means)


def estimate(
    by_seed: Float[np.ndarray, "seeds queries"], means: Float[np.ndarray, "samples"], *, confidence: float = 0.95
) -> Estimate:
    """Returns the mean over seeds and queries with its interval.

    Args:
      by_seed: one value for each seed and query.
      means: the resampled means of `by_seed`, averaged over its seeds.
      confidence: the share of the resampled means within the interval.
    """
    low, high = _interval(means, confidence)
    spread = float(by_seed.mean(axis=1).std(ddof=1)) if len(by_seed) > 1 else None
    return Estimate(
        value=float(by_seed.mean()),
        low=low,
        high=high,
        queries=by_seed.shape[1],
        seeds=len(by_seed),
        seed_spread=spread,
    )


def two_sided_p(means: Float[np.ndarray, "samples"]) -> float:
    """Returns the bootstrap p-value of a mean of 0: twice the smaller share of resampled means on one side of it.

    A mean of exactly 0 counts on both sides. One sample is added to each side, so that no p-value is 0 (Davison and
    Hinkley 1997, section 4.2).
    """
    smaller = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (len(means) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for their number by Holm's step-down method (Holm 1979).

    The i-th smallest of m p-values, from i = 0, is multiplied by m - i. No corrected value is below that of a smaller
    p-value, nor above 1.
    """
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for position, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[index]))
        corrected[index] = largest
    return corrected


def differences(
    pairs: Sequence[tuple[Float[np.ndarray, "seeds queries"], Float[np.ndarray, "seeds queries"]]],
    *,
    samples: int,
    alpha: float = 0.05,
    resampled: Sequence[Float[np.ndarray, "samples"]] | None = None,
) -> list[Difference]:
    """Returns the difference of each pair (system, reference), with Holm's correction over all of them.

    The verdict is "better" or "worse" only if the corrected p-value is at most alpha and the interval at Holm's
    confidence excludes 0. That confidence is 1 - alpha / (m - i) for the i-th smallest of m p-values, from i = 0.
    Differences over fewer than FEWEST_QUERIES queries count in m with a p-value of 1.

    Args:
      pairs: the values of a system and those of the reference; both have the same queries in the same order, and any
        number of seeds.
      samples: the number of bootstrap samples.
      alpha: the probability of any wrong verdict in the family, if no system differed.
      resampled: the resampled means of the `paired` values of each pair, if they are known already.

    Raises:
      InputError: the samples are too few for a p-value that the correction of so many differences could leave below
        alpha.
    """
    needed = minimum_samples(len(pairs), alpha=alpha)
    if samples < needed:
        raise InputError(
            f"--bootstrap-samples {samples} is too small for {len(pairs)} differences, because no p-value could be "
            f"below {alpha} after Holm's correction; give at least {needed}"
        )
    if resampled is None:
        resampled = resampled_columns([paired(pair) for pair in pairs], samples=samples)
    enough = [pair[0].shape[1] >= FEWEST_QUERIES for pair in pairs]
    p_values = [two_sided_p(means) if many else 1.0 for means, many in zip(resampled, enough, strict=True)]
    corrected = holm(p_values)
    ranks = np.empty(len(pairs), int)
    ranks[np.argsort(p_values, kind="stable")] = np.arange(len(pairs))
    found = []
    for index, (pair, means) in enumerate(zip(pairs, resampled, strict=True)):
        low, high = _interval(means, 1 - alpha / (len(pairs) - ranks[index]))
        low_all, high_all = _interval(means, 1 - alpha / len(pairs))
        shown = corrected[index] <= alpha and (low > 0 or high < 0)
        unknown = "no difference shown" if enough[index] else "too few queries"
        found.append(
            Difference(
                estimate=estimate(pair[0] - pair[1].mean(axis=0), means),
                p=p_values[index],
                p_holm=corrected[index],
                low_holm=low,
                high_holm=high,
                low_all=low_all,
                high_all=high_all,
                verdict=("better" if low > 0 else "worse") if shown else unknown,
            )
        )
    return found


def minimum_samples(differences: int, *, alpha: float = 0.05) -> int:
    """Returns the number of bootstrap samples with which the smallest p-value of a family can pass its correction."""
    return int(np.ceil(2 * differences / alpha))


def resampled_columns(
    columns: Sequence[Float[np.ndarray, "queries"]], *, samples: int
) -> list[Float[np.ndarray, "samples"]]:
    """Returns the resampled means of each column. Columns of equal length share the draws and one matrix product."""
    found: dict[int, np.ndarray] = {}
    for length in {len(column) for column in columns}:
        indices = [index for index, column in enumerate(columns) if len(column) == length]
        means = resampled_means(np.stack([columns[index] for index in indices], axis=1), samples=samples)
        found |= {index: means[:, place] for place, index in enumerate(indices)}
    return [found[index] for index in range(len(columns))]


def paired(pair: tuple[Any, Any]) -> Float[np.ndarray, "queries"]:
    """Returns the difference of a pair (system, reference) for each query, from the means over seeds."""
    system, reference = pair
    if system.shape[1] != reference.shape[1]:
        raise ValueError(f"a pair has {system.shape[1]} and {reference.shape[1]} queries; they must be the same ones")
    return system.mean(axis=0) - reference.mean(axis=0)


def _interval(means: Float[np.ndarray, "samples"], confidence: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
