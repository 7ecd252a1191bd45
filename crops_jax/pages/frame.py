"""The frame of every chart: one <svg> that a screen reader can name, and round numbers along its axes."""

import math
from collections.abc import Sequence
from html import escape

WIDTH = 360
SERIES = 6


def frame(body: Sequence[str], *, height: float, title: str, description: str) -> str:
    """An <svg> of 360 x height units around `body`, whose title and description are its text for screen readers."""
    label = escape(f"{title}. {description}", quote=True)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {number(height)}" role="img" aria-label="{label}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(body)}</svg>'
    )


def text(content: str, *, x: float, y: float, kind: str = "label", anchor: str = "start") -> str:
    """Text with its baseline at y. kind: "label", "value" or "tick", a class of the page."""
    return f'<text class="{kind}" x="{number(x)}" y="{number(y)}" text-anchor="{anchor}">{escape(content)}</text>'


def colour(place: int) -> str:
    """The colour of the series at a place, from 0 on; they repeat after SERIES."""
    return f"var(--series-{place % SERIES + 1})"


def number(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


def ticks(low: float, high: float, *, about: int = 4) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`: multiples of 1, 2 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high < low:
        raise ValueError(f"an axis needs finite low <= high, found {low} and {high}")
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(m * power for m in (1, 2, 5, 10) if m * power * about >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, max(last, first + 1) + 1)]


def tick_text(value: float) -> str:
    """A tick's number without trailing zeros, thousands by k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}"
