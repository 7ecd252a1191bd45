"""The table of a comparison: table.csv with every cell and the means over seeds, and differences.csv."""

import csv
import dataclasses
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

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
    paired,
    resampled_columns,
)
from launch.comparison.systems import SYSTEMS, System, tower_of

TABLE = "table.csv"
DIFFERENCES = "differences.csv"
COLUMNS = ("system", "architecture", "seed", "metric", "value", "low", "high")
ALL_SEEDS = "all"
"""The seed of the rows that hold the mean over seeds."""
_ARCHITECTURES = ("none", "transformer", "hashed")
RATES_DIFFER = "learning rates differ"
"""The verdict on two systems to which tuning gave different learning rates: the rate alone can make a larger difference
than the systems, and dev hardly tells rates apart."""


class Pair(NamedTuple):
    """Two systems that are compared in a metric. The difference is that of `system` minus `other`."""

    system: str
    architecture: str
    other: str
    other_architecture: str
    metric: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.system, self.architecture, self.metric

    @property
    def other_key(self) -> tuple[str, str, str]:
        return self.other, self.other_architecture, self.metric

    @property
    def reversed(self) -> "Pair":
        return Pair(self.other, self.other_architecture, self.system, self.architecture, self.metric)

    def is_to(self, reference: str) -> bool:
        """Returns whether the other one is the reference that the system is compared with in the main table."""
        return self.other == reference and self.other_architecture == tower_of(self.architecture)


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The systems and the metrics that a comparison can have."""

    systems: Mapping[str, System]
    """The systems by name, in the order in which they are trained."""
    metrics: Mapping[str, str]
    """The metrics of the main table with their labels."""
    reference: str
    """The system that the others are compared with, unless --reference names another one."""
    lead: str
    """The sentences under the heading of the page: what is the same for every system."""
    pairs: Sequence[Pair] = ()
    """Further pairs of systems that are compared, where no claims name them."""
    meanings: Mapping[str, str] = field(default_factory=dict)
    """Word of the labels -> its meaning; empty for the tests of a log, which the page itself explains."""


WORLD = Catalogue(
    systems=SYSTEMS,
    metrics=MAIN,
    reference="crops",
    lead="Every system has the same queries, documents, towers, training steps and tuning grid. The systems differ in "
    "their labels, their negatives and their loss.",
)
"""The comparison on a generated world or on log tables."""


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


def rates_differ(*trained: Trained | None) -> bool:
    """Returns whether tuning gave the systems different learning rates. Those that have none count for nothing."""
    rates = {one.figure("learning_rate_factor") for one in trained if one is not None}
    return len(rates - {None}) > 1


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The finished part of a comparison."""

    trained: Sequence[Trained]
    """In the order of the catalogue; those of other versions come last."""
    metrics: Sequence[str]
    """The metrics whose values of single queries are known; of the others only the means are."""
    cells: Mapping[tuple[str, str, int, str], Estimate]
    """(system, architecture, seed, metric) -> the mean over queries."""
    means: Mapping[tuple[str, str, str], Estimate]
    """(system, architecture, metric) -> the mean over seeds and queries."""
    reference: str
    differences: Mapping[tuple[str, str, str], Difference]
    """(system, architecture, metric) -> the difference to the reference, for the metrics of the main table."""
    further: Mapping[Pair, Difference]
    """The differences of further pairs of systems, in the same family of Holm's correction."""
    catalogue: Catalogue = WORLD

    @property
    def family(self) -> int:
        """The number of differences that are corrected together."""
        return len(self.differences) + len(self.further)

    def difference(self, pair: Pair) -> Difference | None:
        """Returns the difference of a pair, which can be known the other way round; None if it was not computed."""
        for wanted, is_reversed in ((pair, False), (pair.reversed, True)):
            found = self.further.get(wanted)
            if found is None and wanted.is_to(self.reference):
                found = self.differences.get(wanted.key)
            if found is not None:
                return found.reversed if is_reversed else found
        return None


def compare_results(
    results: Sequence[Result],
    *,
    reference: str,
    samples: int,
    pairs: Sequence[Pair] = (),
    catalogue: Catalogue = WORLD,
) -> Comparison:
    """Returns the means with their intervals, and the differences of systems with Holm's correction.

    The family of the correction is every system and architecture with every metric of the main table, compared with the
    reference, and the further pairs.

    Args:
      results: the results of finished cells.
      reference: the system that the others are compared with.
      samples: the number of bootstrap samples; more are drawn if Holm's correction of so many differences needs them.
      pairs: further pairs to compare. Those of which a system has no values are left out.
      catalogue: the systems in their order, and the metrics of the main table.

    Raises InputError if the results have a metric for different queries.
    """
    trained, main = _by_system(results, catalogue.systems), catalogue.metrics
    present = {metric for result in results for metric, one in result.metrics.items() if one.values}
    metrics = [metric for metric in main if metric in present] + sorted(present - main.keys())
    for metric in metrics:
        _check_same_queries(results, metric)
    matrices = {
        (*one.key, metric): one.values(metric) for metric in metrics for one in trained if one.has_values(metric)
    }
    in_table, added = _pairs(trained, matrices.keys(), reference, pairs, metrics=main)
    compared = [(matrices[pair.key], matrices[pair.other_key]) for pair in [*in_table, *added]]
    # The means and the differences share their draws, which take longer than all else.
    drawn = max(samples, minimum_samples(len(compared)))
    rows = [row for matrix in matrices.values() for row in matrix]
    resampled = resampled_columns([*rows, *(paired(pair) for pair in compared)], samples=drawn)
    cells: dict[tuple[str, str, int, str], Estimate] = {}
    means: dict[tuple[str, str, str], Estimate] = {}
    by_row = iter(resampled)
    seeds = {one.key: [result.seed for result in one.results] for one in trained}
    for (system, architecture, metric), matrix in matrices.items():
        columns = np.stack([next(by_row)[:samples] for _ in matrix])
        means[system, architecture, metric] = estimate(matrix, columns.mean(axis=0))
        for place, seed in enumerate(seeds[system, architecture]):
            cells[system, architecture, seed, metric] = estimate(matrix[place : place + 1], columns[place])
    by_key = {one.key: one for one in trained}
    found = {
        pair: dataclasses.replace(difference, verdict=RATES_DIFFER)
        if rates_differ(by_key[pair.key[:2]], by_key[pair.other_key[:2]])
        else difference
        for pair, difference in zip(
            [*in_table, *added], differences(compared, samples=drawn, resampled=list(by_row)), strict=True
        )
    }
    return Comparison(
        trained=trained,
        metrics=metrics,
        cells=cells,
        means=means,
        reference=reference,
        differences={pair.key: found[pair] for pair in in_table},
        further={pair: found[pair] for pair in added},
        catalogue=catalogue,
    )


def write_table(table: Path, comparison: Comparison) -> None:
    """Writes table.csv and differences.csv; each appears whole."""
    write_text(table / TABLE, as_csv(COLUMNS, _rows(comparison)))
    estimates = ("value", "low", "high", "p", "p_holm", "low_holm", "high_holm", "seed_spread", "queries", "verdict")
    columns = ("system", "architecture", "metric", "reference", "reference_architecture", *estimates)
    write_text(table / DIFFERENCES, as_csv(columns, _difference_rows(comparison)))


def _by_system(results: Sequence[Result], systems: Iterable[str]) -> list[Trained]:
    grouped: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        grouped.setdefault((result.system, result.architecture), []).append(result)
    order = {name: place for place, name in enumerate(systems)}
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


def _pairs(
    trained: Sequence[Trained],
    measured: Collection[tuple[str, str, str]],
    reference: str,
    further: Sequence[Pair],
    *,
    metrics: Iterable[str],
) -> tuple[list[Pair], list[Pair]]:
    """Returns the comparisons with the reference, and the further ones that are not among them the other way round."""
    in_table = [
        Pair(one.system, one.architecture, reference, tower_of(one.architecture), metric)
        for metric in metrics
        for one in trained
        if one.system != reference
    ]
    known = {*in_table, *(pair.reversed for pair in in_table)}
    added = [pair for pair in dict.fromkeys(further) if pair not in known]
    both = [
        [pair for pair in some if pair.key in measured and pair.other_key in measured] for some in (in_table, added)
    ]
    return both[0], both[1]


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
    reference = comparison.reference
    pairs = [
        (Pair(system, architecture, reference, tower_of(architecture), metric), found)
        for (system, architecture, metric), found in comparison.differences.items()
    ]
    return [
        (pair.system, pair.architecture, pair.metric, pair.other, pair.other_architecture)
        + (found.estimate.value, found.estimate.low, found.estimate.high, found.p, found.p_holm)
        + (found.low_holm, found.high_holm, found.estimate.seed_spread, found.estimate.queries, found.verdict)
        for pair, found in [*pairs, *comparison.further.items()]
    ]


def as_csv(columns: Sequence[str], rows: Sequence[tuple]) -> str:
    """Returns a table as text. Numbers are rounded to 6 decimal places, and None is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if cell is None else round(cell, 6) if isinstance(cell, float) else cell for cell in row])
    return text.getvalue()
