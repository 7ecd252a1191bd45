"""Bootstrap intervals over queries: the uncertainty of a mean, or of a difference of two means, due to the queries."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64

# The number of values that are drawn at once: 32 MiB of indices.
_DRAWN_AT_ONCE = 1 << 22


class Interval(NamedTuple):
    """A mean over queries with its percentile interval. Without queries, value, low and high are NaN."""

    value: float
    low: float
    high: float
    queries: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval is above 0 or below 0; only then can a report say "better" or "worse"."""
        return self.low > 0 or self.high < 0

    def as_json(self, *, digits: int | None = None) -> dict[str, float | int | None]:
        """Returns {"value", "low", "high", "queries"}; without queries the first three are None.

        digits: the number of decimal places that the first three are rounded to; None: they are not rounded.
        """
        numbers = {name: None if self.queries == 0 else float(getattr(self, name)) for name in ("value", "low", "high")}
        if digits is not None:
            numbers = {name: None if number is None else round(number, digits) for name, number in numbers.items()}
        return {**numbers, "queries": self.queries}


def bootstrap_mean(
    values: Float[Any, "queries"] | Sequence[float], *, seed: int = 0, samples: int = 2000, confidence: float = 0.95
) -> Interval:
    """Returns the mean of one value for each query, with the percentile bootstrap interval over queries (Efron 1979).

    Args:
      values: one number for each query.
      seed: the seed of the resampling; a seed draws the same queries whenever their number is the same.
      samples: the number of bootstrap samples.
      confidence: the share of the bootstrap means within the interval.

    Raises ValueError if samples, confidence or the shape of values is out of range.
    """
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1:
        raise ValueError(f"values must be one number for each query, found shape {numbers.shape}")
    return _interval(
        lambda drawn: numbers[drawn].mean(axis=-1), numbers.size, seed=seed, samples=samples, confidence=confidence
    )


def bootstrap_draws(count: int, *, samples: int, seed: int) -> Iterator[Int64[np.ndarray, "rows queries"]]:
    """Yields the indices of the queries that each bootstrap sample draws with replacement, one row for each sample.

    All intervals use these draws, so that figures with the same number of queries and the same seed are paired.

    Args:
      count: the number of queries; at least 1.
      samples: the number of samples in all blocks of rows together.
      seed: the seed of the draws.
    """
    generator = np.random.default_rng(seed)
    rows = max(1, _DRAWN_AT_ONCE // count)
    for start in range(0, samples, rows):
        yield generator.integers(0, count, size=(min(rows, samples - start), count))


def bootstrap_ratio(
    numerators: Float[Any, "queries"] | Sequence[float],
    denominators: Float[Any, "queries"] | Sequence[float],
    *,
    seed: int = 0,
    samples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Returns sum(numerators) / sum(denominators), such as a precision, with its bootstrap interval over queries.

    All pairs of a query are drawn together, because they are not independent. Queries whose denominator is 0 are left
    out. Arguments and errors are those of `bootstrap_mean`; `queries` counts those with a denominator above 0.
    """
    top, bottom = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if top.shape != bottom.shape or top.ndim != 1:
        raise ValueError(f"a ratio needs two numbers for each query, found shapes {top.shape} and {bottom.shape}")
    top, bottom = top[bottom > 0], bottom[bottom > 0]
    return _interval(
        lambda drawn: top[drawn].sum(axis=-1) / bottom[drawn].sum(axis=-1),
        bottom.size,
        seed=seed,
        samples=samples,
        confidence=confidence,
    )


def paired_difference(
    first: Float[Any, "queries"] | Sequence[float],
    second: Float[Any, "queries"] | Sequence[float],
    *,
    seed: int = 0,
    samples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Returns the mean of first - second with its paired bootstrap interval.

    Both have one value for each query, with the same queries in the same order. Raises ValueError if their shapes
    differ.
    """
    first_values, second_values = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first_values.shape != second_values.shape:
        raise ValueError(
            f"a paired difference needs the same queries, found shapes {first_values.shape} and {second_values.shape}"
        )
    return bootstrap_mean(first_values - second_values, seed=seed, samples=samples, confidence=confidence)


def _interval(
    statistic: Callable[[np.ndarray], np.ndarray], count: int, *, seed: int, samples: int, confidence: float
) -> Interval:
    """Returns a statistic of `count` queries with its percentile interval.

    `statistic` takes indices of queries [..., count] and returns one value for each row of indices. Raises ValueError
    if samples or confidence is out of range.
    """
    if samples < 1 or not 0 < confidence < 1:
        raise ValueError(f"samples must be positive and confidence in (0, 1), found {samples} and {confidence}")
    if count == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    values = [statistic(drawn) for drawn in bootstrap_draws(count, samples=samples, seed=seed)]
    low, high = np.quantile(np.concatenate(values), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(statistic(np.arange(count))), float(low), float(high), count)
