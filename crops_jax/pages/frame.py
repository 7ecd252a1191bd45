"""The parts that all charts share: the <svg> element with a text for screen readers, texts, colours and axis ticks."""

import math
from collections.abc import Sequence
from html import escape

WIDTH = 360
SERIES = 6


def frame(body: Sequence[str], *, height: float, title: str, description: str) -> str:
    """Returns an <svg> of 360 x height units around `body`. Screen readers read its title and description."""
    label = escape(f"{title}. {description}", quote=True)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {number(height)}" role="img" aria-label="{label}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(body)}</svg>'
    )


def text(content: str, *, x: float, y: float, kind: str = "label", anchor: str = "start") -> str:
    """Returns a text element with its baseline at y. kind: the class in the page: "label", "value" or "tick"."""
    return f'<text class="{kind}" x="{number(x)}" y="{number(y)}" text-anchor="{anchor}">{escape(content)}</text>'


def colour(index: int) -> str:
    """Returns the colour of the series with an index, from 0. The colours repeat after SERIES."""
    return f"var(--series-{index % SERIES + 1})"


def number(value: float) -> str:
    """Returns a coordinate as text, with at most one decimal digit."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


def ticks(low: float, high: float, *, about: int = 4) -> list[float]:
    """Returns round numbers that cover `low` to `high`: successive multiples of 1, 2 or 5 times a power of ten.

    Args:
      about: the approximate number of steps between them.

    Raises:
      ValueError: the ends are not finite, or high < low.
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high < low:
        raise ValueError(f"an axis needs finite low <= high, found {low} and {high}")
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(m * power for m in (1, 2, 5, 10) if m * power * about >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(multiple * step, 12) for multiple in range(first, max(last, first + 1) + 1)]


def tick_text(value: float) -> str:
    """Returns the number of a tick without trailing zeros; from 10,000 on it is in thousands, with "k"."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}"
