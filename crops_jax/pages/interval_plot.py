"""One dot and its interval a row: how systems compare in one figure."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from crops_jax.pages.frame import WIDTH, colour, frame, number, text, tick_text, ticks

_LEFT, _RIGHT = 122, WIDTH - 46
_ROW, _TOP = 30, 8
_LEAST_SPAN = 0.1


class Row(NamedTuple):
    """A system's figure: label, value, the ends of its interval, and the place of its colour."""

    label: str
    value: float
    low: float
    high: float
    colour: int


def interval_plot(rows: Sequence[Row], *, title: str, reference: tuple[str, float] | None = None) -> str:
    """Dots with intervals on one axis within 0 to 1, values written beside them.

    Args:
      rows: from top to bottom; values are shares or the like.
      title: what is measured.
      reference: a name and a value to draw as a dashed line, such as what a random order gives.
    """
    bounds = [end for row in rows for end in (row.low, row.high)]
    # The reference joins the axis only when it is near: far off, it would press the systems together.
    span = max(bounds) - min(bounds)
    near = reference is not None and min(bounds) - 2 * span <= reference[1] <= max(bounds) + 2 * span
    drawn = [*bounds, *([reference[1]] if reference and near else [])]
    # Values that hardly differ are not spread over the whole width, where they would seem to.
    room = max(0.0, _LEAST_SPAN - (max(drawn) - min(drawn))) / 2
    marks = ticks(max(0.0, min(drawn) - room), min(1.0, max(drawn) + room))
    low, high = marks[0], marks[-1]

    def place(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_RIGHT - _LEFT)

    bottom = _TOP + _ROW * len(rows)
    body = [
        f'<line class="grid" x1="{number(place(mark))}" y1="{_TOP}" x2="{number(place(mark))}" y2="{bottom}"/>'
        + text(tick_text(mark), x=place(mark), y=bottom + 15, kind="tick", anchor="middle")
        for mark in marks
    ]
    if reference and near:
        x = number(place(reference[1]))
        body.append(f'<line class="reference" x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}"/>')
    body += [_row(row, place, _TOP + _ROW * (index + 0.5)) for index, row in enumerate(rows)]
    said = "; ".join(f"{row.label} {row.value:.3f}, interval {row.low:.3f} to {row.high:.3f}" for row in rows)
    if reference:
        said += f"; {reference[0]} {reference[1]:.3f}"
        if near:
            body.append(text(f"dashed: {reference[0]}", x=_RIGHT, y=bottom + 30, kind="tick", anchor="end"))
    return frame(body, height=bottom + (36 if reference and near else 22), title=title, description=said)


def _row(row: Row, place, y: float) -> str:
    left, middle, right = (number(place(value)) for value in (row.low, row.value, row.high))
    ink = colour(row.colour)
    return (
        f"<g><title>{escape(f'{row.label}: {row.value:.4f} [{row.low:.4f}, {row.high:.4f}]')}</title>"
        + text(row.label, x=0, y=y + 4)
        + f'<line x1="{left}" y1="{number(y)}" x2="{right}" y2="{number(y)}" style="stroke:{ink};stroke-width:3" '
        'stroke-linecap="round" opacity=".55"/>'
        f'<circle cx="{middle}" cy="{number(y)}" r="5" style="fill:{ink}"/>'
        + text(f"{row.value:.3f}", x=WIDTH, y=y + 4, kind="value", anchor="end")
        + "</g>"
    )
