"""The head of the page: how many of the positives of each source are relevant, and how many are new to the log."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from crops_jax.pages.page import share
from data.mining_report.charts import words
from data.mining_report.figures import LOG, Gain


class SummaryRow(NamedTuple):
    """Precision and novelty of the positives of a source; None where they are not known."""

    source: str
    precision: float | None
    low: float | None
    high: float | None
    known: int
    """The number of positives whose relevance is known."""
    novelty: float | None
    positives: int


class Summary(NamedTuple):
    """The head of the page."""

    sentences: list[str]
    rows: list[SummaryRow]
    known: str
    """The pairs over which precision is measured, in words."""

    @property
    def intervals(self) -> bool:
        """Whether any precision has an interval."""
        return any(row.low is not None for row in self.rows)


def summary_of(
    gains: Mapping[str, Gain],
    beyond_log: Gain,
    by_judges: Mapping[str, Any] | None,
    by_truth: Mapping[str, Mapping[str, Any]] | None,
) -> Summary:
    """Returns the head of the page.

    The truth of a generated world knows all pairs, so precision is by truth where there is one, and by judgements
    elsewhere. Judged are the pairs after theta, the relevance discriminator, where it decided, and otherwise all pairs.

    Args:
      gains: source -> its positives.
      beyond_log: the positives that are not those of the search log.
      by_judges: what data.mine measured by judgements ("sources" -> source -> "before" and "after").
      by_truth: source -> "pairs", "value" and the interval, see data.mining_report.truth.
    """
    measured: Mapping[str, Any] = _of_truth(by_truth) if by_truth is not None else _of_judges(by_judges)
    nothing: tuple[None, None, None, int] = (None, None, None, 0)
    rows = [
        SummaryRow(source, *measured.get(source, nothing), gain.share("never_shown"), gain.positives)
        for source, gain in gains.items()
    ]
    known = (
        "positives whose grade the truth of the generated world knows" if by_truth is not None else "judged positives"
    )
    return Summary([*_precision_sentence(rows, known), *_novelty_sentence(beyond_log)], rows, known)


def _of_truth(by_truth: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[float, float, float, int]]:
    return {source: (one["value"], one["low"], one["high"], one["pairs"]) for source, one in by_truth.items()}


def _of_judges(by_judges: Mapping[str, Any] | None) -> dict[str, tuple[float | None, float | None, float | None, int]]:
    found = {}
    for source, stages in (by_judges or {"sources": {}})["sources"].items():
        figures = stages.get("after", stages["before"])
        if figures["judged"]:
            found[source] = (figures["value"], figures["low"], figures["high"], figures["judged"])
    return found


def _precision_sentence(rows: list[SummaryRow], known: str) -> list[str]:
    others = [row for row in rows if row.source != LOG]
    measured = [f"{share(row.precision)} of {words(row.source)}" for row in others if row.precision is not None]
    if not measured:
        return (
            ["It is not known how many of the positives are relevant: no judgement and no truth tells."] if rows else []
        )
    clicks = next((row.precision for row in rows if row.source == LOG and row.precision is not None), None)
    beside = "" if clicks is None else f", beside {share(clicks)} of the search log"
    return [f"Of the {known}, these shares are relevant: {', '.join(measured)}{beside}."]


def _novelty_sentence(beyond: Gain) -> list[str]:
    new, absent = beyond.share("never_shown"), beyond.share("never_candidate")
    if new is None:
        return []
    return [
        f"Of the positives that the search log does not have, {share(new)} were never shown for their query in any "
        f"search, and {share(absent)} were not even a candidate. Training on clicks alone could not have learned them. "
        f"They are {beyond.never_shown:,} of {beyond.positives:,}, for {beyond.queries:,} queries."
    ]
