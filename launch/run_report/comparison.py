"""Compares systems on one SPLIT: their main figures, and paired differences with a verdict."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crops_jax.retrieval.evaluation import Value, differences
from crops_jax.retrieval.intervals import Interval
from launch.run_report.headline import Figure
from launch.run_report.sources import Evaluation

TESTS = {
    "ct": "CT: later clicks",
    "qr": "QR: later reformulations",
    "judgements": "Judged documents",
    "hidden_relevant": "Hidden: relevant documents that no search showed",
    "truth": "Truth: all relevant documents of the judged queries",
}
SUBSETS = {
    "unseen_queries": "queries not in the log",
    "seen_queries": "queries in the log",
    "unseen_pairs": "pairs not clicked in the log",
    "seen_pairs": "pairs clicked in the log",
}


@dataclass(frozen=True, kw_only=True)
class System:
    """A system of the comparison, which is one row of every table: an encoder or BM25."""

    name: str
    figures: dict[str, dict[str, dict[str, Any]]]
    subsets: dict[str, dict[str, dict[str, dict[str, Any]]]]
    values: list[Value]

    @property
    def is_bm25(self) -> bool:
        return self.name.startswith("bm25")

    def figure(self, figure: Figure) -> dict[str, Any] | None:
        """Returns one figure with its interval, or None where no query has it."""
        return figure.of(self.figures, self.subsets)

    def by_label(self, figures: Iterable[Figure]) -> dict[str, dict[str, Any]]:
        """Returns those of the figures that the system has, by label."""
        return {one.label: found for one in figures if (found := self.figure(one))}


def systems_of(evaluations: Sequence[Evaluation]) -> list[System]:
    """Returns the systems of evaluations of one SPLIT: the encoders, then BM25 once for each of its settings."""
    systems = [_system(evaluation, "encoder", evaluation.name) for evaluation in evaluations]
    settings: dict[tuple[float, float], Evaluation] = {}
    for evaluation in evaluations:
        bm25 = evaluation.metrics["bm25"]
        settings.setdefault((bm25["k1"], bm25["b"]), evaluation)
    for position, ((k1, b), evaluation) in enumerate(settings.items()):
        systems.append(_system(evaluation, "bm25", "bm25" if position == 0 else f"bm25 (k1 {k1:g}, b {b:g})"))
    return systems


def compare(systems: Sequence[System], headline: Sequence[Figure]) -> list[dict[str, Any]]:
    """Returns paired differences: of every other encoder to the first, and of every encoder to each BM25.

    The verdict is "better" or "worse" only if the interval excludes 0.
    """
    encoders = [system for system in systems if not system.is_bm25]
    others = [system for system in systems if system.is_bm25]
    pairs = [(system, encoders[0]) for system in encoders[1:]]
    pairs += [(system, other) for other in others for system in encoders]
    rows = []
    for order, (one, other) in enumerate(pairs):
        for label, interval in paired(one.values, other.values, headline).items():
            numbers = interval.as_json()
            named = {"order": order, "system": one.name, "against": other.name, "label": label}
            rows.append({**named, "verdict": verdict(numbers), **numbers})
    return rows


def paired(first: Sequence[Value], second: Sequence[Value], headline: Sequence[Figure]) -> dict[str, Interval]:
    """Returns the mean of first - second over the queries of both, by label, for the figures that have any query."""
    by_pairs = {pairs: differences(first, second, pairs=pairs) for pairs in {figure.pairs for figure in headline}}
    found = {figure.label: by_pairs[figure.pairs].get(figure.test, {}).get(figure.metric) for figure in headline}
    return {label: interval for label, interval in found.items() if interval is not None and interval.queries}


def verdict(difference: Mapping[str, Any]) -> str:
    """Returns the verdict on a difference with its interval: "better" or "worse" only if the interval excludes 0."""
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "no difference shown"


def _system(evaluation: Evaluation, system: str, name: str) -> System:
    return System(
        name=name,
        figures=evaluation.metrics["systems"][system],
        subsets=evaluation.metrics["subsets"][system],
        values=evaluation.values(system),
    )
