"""The table of a comparison: table.csv with every cell and the means over seeds, and differences.csv."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from crops_jax.artifacts import write_text
from crops_jax.errors import InputError
from launch.comparison.measures import MAIN
from launch.comparison.results.files import Result
from launch.comparison.results.statistics import (
    Difference,
    Estimate,
    differences,
    estimate,
    minimum_samples,
    resampled_means,
)
from launch.comparison.systems import SYSTEMS

TABLE = "table.csv"
DIFFERENCES = "differences.csv"
COLUMNS = ("system", "architecture", "seed", "metric", "value", "low", "high")
ALL_SEEDS = "all"
"""The seed of the rows that hold the mean over seeds."""
_ARCHITECTURES = ("none", "transformer", "hashed")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A system with an architecture: its results of all seeds."""

    system: str
    architecture: str
    results: Sequence[Result]

    @property
    def key(self) -> tuple[str, str]:
        return self.system, self.architecture

    def values(self, metric: str) -> Float[np.ndarray, "seeds queries"]:
        return np.array([result.metrics[metric].values for result in self.results])

    def has_values(self, metric: str) -> bool:
        """Returns whether each seed has the values of single queries."""
        return all(metric in result.metrics and result.metrics[metric].values for result in self.results)

    def figure(self, name: str) -> float | None:
        """Returns the mean over seeds of a number of the runs; None if a seed has none."""
        found = [result.figures[name] for result in self.results if name in result.figures]
        return float(np.mean(found)) if found and len(found) == len(self.results) else None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The finished part of a comparison."""

    trained: Sequence[Trained]
    """In the order of SYSTEMS; those of other versions come last."""
    metrics: Sequence[str]
    """The metrics whose values of single queries are known; of the others only the means are."""
    cells: Mapping[tuple[str, str, int, str], Estimate]
    """(system, architecture, seed, metric) -> the mean over queries."""
    means: Mapping[tuple[str, str, str], Estimate]
    """(system, architecture, metric) -> the mean over seeds and queries."""
    reference: str
    differences: Mapping[tuple[str, str, str], Difference]
    """(system, architecture, metric) -> the difference to the reference, for the metrics of the main table."""


def compare_results(results: Sequence[Result], *, reference: str, samples: int) -> Comparison:
    """Returns the means with their intervals, and the differences to the reference with Holm's correction.

    The family of the correction is every system and architecture with every metric of the main table.

    Args:
      results: the results of finished cells.
      reference: the system that the others are compared with.
      samples: the number of bootstrap samples; more are drawn if Holm's correction of so many differences needs them.

    Raises InputError if the results have a metric for different queries.
    """
    trained = _by_system(results)
    present = {metric for result in results for metric, one in result.metrics.items() if one.values}
    metrics = [metric for metric in MAIN if metric in present] + sorted(present - MAIN.keys())
    cells: dict[tuple[str, str, int, str], Estimate] = {}
    means: dict[tuple[str, str, str], Estimate] = {}
    for metric in metrics:
        _check_same_queries(results, metric)
        measured = [one for one in trained if one.has_values(metric)]
        if not measured:
            continue
        matrices = [one.values(metric) for one in measured]
        resampled = resampled_means(np.concatenate(matrices).T, samples=samples)
        start = 0
        for one, matrix in zip(measured, matrices, strict=True):
            columns = resampled[:, start : start + len(matrix)]
            start += len(matrix)
            means[*one.key, metric] = estimate(matrix, columns.mean(axis=1))
            for place, result in enumerate(one.results):
                cells[*one.key, result.seed, metric] = estimate(matrix[place : place + 1], columns[:, place])
    return Comparison(
        trained=trained,
        metrics=metrics,
        cells=cells,
        means=means,
        reference=reference,
        differences=_differences(trained, means, reference, samples=samples),
    )


def write_table(table: Path, comparison: Comparison) -> None:
    """Writes table.csv and differences.csv; each appears whole."""
    write_text(table / TABLE, _csv(COLUMNS, _rows(comparison)))
    estimates = ("value", "low", "high", "p", "p_holm", "low_holm", "high_holm", "seed_spread", "queries", "verdict")
    columns = ("system", "architecture", "metric", "reference", "reference_architecture", *estimates)
    write_text(table / DIFFERENCES, _csv(columns, _difference_rows(comparison)))


def _by_system(results: Sequence[Result]) -> list[Trained]:
    grouped: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        grouped.setdefault((result.system, result.architecture), []).append(result)
    order = {name: place for place, name in enumerate(SYSTEMS)}
    keys = sorted(grouped, key=lambda key: (order.get(key[0], len(order)), key[0], _ARCHITECTURES.index(key[1])))
    return [
        Trained(system=key[0], architecture=key[1], results=sorted(grouped[key], key=lambda result: result.seed))
        for key in keys
    ]


def _check_same_queries(results: Sequence[Result], metric: str) -> None:
    first: dict[str, Result] = {}
    for result in results:
        if metric in result.metrics:
            first.setdefault(result.metrics[metric].fingerprint, result)
    if len(first) > 1:
        one, other = (result.name for result in list(first.values())[:2])
        raise InputError(
            f"the results of {one} and {other} have {metric} for different queries, so they cannot be compared; remove "
            "the older one from the folder of the results, so that the cell is run again"
        )


def _differences(
    trained: Sequence[Trained], means: Mapping[tuple[str, str, str], Estimate], reference: str, *, samples: int
) -> dict[tuple[str, str, str], Difference]:
    by_key = {one.key: one for one in trained}
    pairs = {}
    for metric in MAIN:
        for one in trained:
            other = by_key.get((reference, _reference_architecture(one.architecture)))
            both = other is not None and (*one.key, metric) in means and (*other.key, metric) in means
            if other is not None and both and one.system != reference:
                pairs[*one.key, metric] = (one.values(metric), other.values(metric))
    if not pairs:
        return {}
    enough = max(samples, minimum_samples(len(pairs)))
    return dict(zip(pairs, differences(list(pairs.values()), samples=enough), strict=True))


def _reference_architecture(architecture: str) -> str:
    return "transformer" if architecture == "none" else architecture


def _rows(comparison: Comparison) -> list[tuple]:
    rows = []
    for one in comparison.trained:
        for metric in comparison.metrics:
            for result in one.results:
                if found := comparison.cells.get((*one.key, result.seed, metric)):
                    rows.append((*one.key, result.seed, metric, found.value, found.low, found.high))
            if mean := comparison.means.get((*one.key, metric)):
                rows.append((*one.key, ALL_SEEDS, metric, mean.value, mean.low, mean.high))
        rows += _rows_without_intervals(one, comparison.metrics)
    return rows


def _rows_without_intervals(one: Trained, with_intervals: Sequence[str]) -> list[tuple]:
    """Returns the metrics of which only the means are known, the figures of the runs, and the seconds of the cells."""
    rows = []
    by_seed = {result.seed: _plain_figures(result, with_intervals) for result in one.results}
    for name in dict.fromkeys(name for figures in by_seed.values() for name in figures):
        found = {seed: figures[name] for seed, figures in by_seed.items() if name in figures}
        rows += [(*one.key, seed, name, value, None, None) for seed, value in found.items()]
        if len(found) == len(by_seed):
            rows.append((*one.key, ALL_SEEDS, name, float(np.mean(list(found.values()))), None, None))
    return rows


def _plain_figures(result: Result, with_intervals: Sequence[str]) -> dict[str, float]:
    means = {metric: one.mean for metric, one in result.metrics.items() if metric not in with_intervals}
    return {**means, **result.figures, "cell_seconds": result.conditions.seconds}


def _difference_rows(comparison: Comparison) -> list[tuple]:
    return [
        (system, architecture, metric, comparison.reference, _reference_architecture(architecture))
        + (found.estimate.value, found.estimate.low, found.estimate.high, found.p, found.p_holm)
        + (found.low_holm, found.high_holm, found.estimate.seed_spread, found.estimate.queries, found.verdict)
        for (system, architecture, metric), found in comparison.differences.items()
    ]


def _csv(columns: Sequence[str], rows: Sequence[tuple]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if cell is None else round(cell, 6) if isinstance(cell, float) else cell for cell in row])
    return text.getvalue()
