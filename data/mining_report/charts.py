"""The charts of data.report, one function for each section of the page."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from crops_jax.labels import Level
from crops_jax.pages.histogram import histogram
from crops_jax.pages.page import LEVELS
from crops_jax.pages.stacked_shares import stacked_shares
from data.mining_report.figures import Distribution, Gain
from data.mining_report.tables import PLACES

PLACE_WORDS = dict(
    zip(
        PLACES,
        ("clicked", "shown, no click recorded", "ranked, not shown", "filtered out", "never a candidate"),
        strict=True,
    )
)


class Picture(NamedTuple):
    """A chart with its title and a note about its data."""

    title: str
    about: str
    chart: Markup


def distribution_charts(
    spreads: Mapping[str, Distribution], order: Sequence[str], *, title: str, unit: str
) -> list[Picture]:
    """Returns a histogram of each perspective; its index in `order` decides the colour, on the whole page."""
    return [
        Picture(
            words(source),
            f"n = {spread.known:,} {unit}",
            Markup(histogram(spread.bins, title=f"{title}, {words(source)}", colour_at=order.index(source))),
        )
        for source, spread in spreads.items()
    ]


def place_chart(gains: Mapping[str, Gain]) -> list[Picture]:
    """Returns the chart of the stages that positives reached in the log; empty if the log has no candidates."""
    rows = [(words(source), gain.places) for source, gain in gains.items() if gain.places is not None]
    if not rows:
        return []
    chart = stacked_shares(rows, parts=list(PLACE_WORDS.values()), title="Where the log had the positives")
    return [
        Picture("Where the log had the positives", "the furthest stage for their query; n at the right", Markup(chart))
    ]


def sweep_charts(
    steps: Mapping[str, Sequence[tuple[float, int]]], order: Sequence[str], *, alpha: float
) -> list[Picture]:
    """Returns a histogram of the passing candidates by alpha, for each perspective."""
    pictures = []
    for source, passing in steps.items():
        bars = [(f"alpha {at:g}{', used' if at == alpha else ''}", number) for at, number in passing]
        chart = histogram(
            bars,
            title=f"Candidates whose theta is greater than alpha, {words(source)}",
            colour_at=order.index(source) if source in order else 0,
        )
        pictures.append(Picture(words(source), f"candidates that pass; mining used alpha {alpha:g}", Markup(chart)))
    return pictures


def level_chart(counts: Mapping[Level, int]) -> list[Picture]:
    """Returns the chart of labels by level; level 0 is left out if it has no labels."""
    bars = [(text, counts[level]) for level, text in LEVELS.items() if level or counts[level]]
    return [
        Picture("Labels by level", f"n = {sum(counts.values()):,}", Markup(histogram(bars, title="Labels by level")))
    ]


def words(name: str) -> str:
    """Returns a name of the tables as the page writes it, with blanks."""
    return name.replace("_", " ")
