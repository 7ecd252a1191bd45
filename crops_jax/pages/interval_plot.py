"""A chart with one dot and its interval per row, which compares systems by one metric."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from crops_jax.pages.frame import WIDTH, colour, frame, number, text, tick_text, ticks

_LEFT, _RIGHT = 122, WIDTH - 46
_ROW, _TOP = 30, 8
_MIN_SPAN = 0.1


class Row(NamedTuple):
    """One system: its label, its value, the ends of its interval, and the index of its colour."""

    label: str
    value: float
    low: float
    high: float
    colour: int


def interval_plot(
    rows: Sequence[Row], *, title: str, reference: tuple[str, float] | None = None, label_width: int = _LEFT
) -> str:
    """Draws dots with intervals on one axis within 0 to 1, with the values beside them.

    Args:
      rows: the systems from top to bottom; values lie in [0, 1].
      title: the name of the metric.
      reference: the name and the value of a dashed line, such as the value of a random order.
      label_width: the units to the left of the axis, for the labels; the chart is 360 units wide.
    """
    bounds = [end for row in rows for end in (row.low, row.high)]
    # The reference is drawn only when it is near the systems. With a distant one, the axis would squeeze them together.
    span = max(bounds) - min(bounds)
    near = reference is not None and min(bounds) - 2 * span <= reference[1] <= max(bounds) + 2 * span
    drawn = [*bounds, *([reference[1]] if reference and near else [])]
    # Nearly equal values are not spread over the whole width, which would exaggerate their differences.
    room = max(0.0, _MIN_SPAN - (max(drawn) - min(drawn))) / 2
    marks = ticks(max(0.0, min(drawn) - room), min(1.0, max(drawn) + room))
    low, high = marks[0], marks[-1]

    def position(value: float) -> float:
        return label_width + (value - low) / (high - low) * (_RIGHT - label_width)

    bottom = _TOP + _ROW * len(rows)
    body = [
        f'<line class="grid" x1="{number(position(mark))}" y1="{_TOP}" x2="{number(position(mark))}" y2="{bottom}"/>'
        + text(tick_text(mark), x=position(mark), y=bottom + 15, kind="tick", anchor="middle")
        for mark in marks
    ]
    if reference and near:
        x = number(position(reference[1]))
        body.append(f'<line class="reference" x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}"/>')
    body += [_row(row, position, _TOP + _ROW * (index + 0.5)) for index, row in enumerate(rows)]
    description = "; ".join(f"{row.label} {row.value:.3f}, interval {row.low:.3f} to {row.high:.3f}" for row in rows)
    if reference:
        description += f"; {reference[0]} {reference[1]:.3f}"
        if near:
            body.append(text(f"dashed: {reference[0]}", x=_RIGHT, y=bottom + 30, kind="tick", anchor="end"))
    return frame(body, height=bottom + (36 if reference and near else 22), title=title, description=description)


def _row(row: Row, position, y: float) -> str:
    left, middle, right = (number(position(value)) for value in (row.low, row.value, row.high))
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
