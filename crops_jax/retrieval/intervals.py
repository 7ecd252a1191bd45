"""Bootstrap intervals over queries: how much a mean, or a difference of two means, owes to the queries drawn."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

# Values drawn at once: 32 MiB of indices.
_DRAWN_AT_ONCE = 1 << 22


class Interval(NamedTuple):
    """A mean over queries with its percentile interval. Without queries all three numbers are NaN."""

    value: float
    low: float
    high: float
    queries: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies wholly above or wholly below 0; only then may "better" or "worse" be said."""
        return self.low > 0 or self.high < 0

    def as_json(self) -> dict[str, float | int | None]:
        """{"value", "low", "high", "queries"}, numbers null where there are no queries."""
        numbers = {name: None if self.queries == 0 else float(getattr(self, name)) for name in ("value", "low", "high")}
        return {**numbers, "queries": self.queries}


def bootstrap_mean(
    values: Float[Any, "queries"] | Sequence[float], *, seed: int = 0, samples: int = 2000, confidence: float = 0.95
) -> Interval:
    """The mean of one value a query, and the percentile bootstrap interval over queries (Efron 1979).

    Args:
      values: one number a query.
      seed: of the resampling; the same seed draws the same queries whenever their number is the same.
      samples: bootstrap samples.
      confidence: share of the bootstrap means within the interval.
    """
    if samples < 1 or not 0 < confidence < 1:
        raise ValueError(f"samples must be positive and confidence in (0, 1), found {samples} and {confidence}")
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1:
        raise ValueError(f"values must be one number a query, found shape {numbers.shape}")
    count = numbers.size
    if count == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    generator = np.random.default_rng(seed)
    means = []
    rows = max(1, _DRAWN_AT_ONCE // count)
    for start in range(0, samples, rows):
        drawn = generator.integers(0, count, size=(min(rows, samples - start), count))
        means.append(numbers[drawn].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(numbers.mean()), float(low), float(high), count)


def paired_difference(
    first: Float[Any, "queries"] | Sequence[float],
    second: Float[Any, "queries"] | Sequence[float],
    *,
    seed: int = 0,
    samples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Mean of first - second over the same queries in the same order, with its paired bootstrap interval."""
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != other.shape:
        raise ValueError(f"a paired difference needs the same queries, found shapes {one.shape} and {other.shape}")
    return bootstrap_mean(one - other, seed=seed, samples=samples, confidence=confidence)
