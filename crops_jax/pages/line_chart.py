"""A chart of curves over steps, such as the loss of a run."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from crops_jax.pages.frame import WIDTH, colour, frame, number, text, tick_text, ticks

_LEFT, _RIGHT, _TOP, _BOTTOM = 40, WIDTH - 8, 10, 170
# More points cannot be distinguished in 312 units. Of a longer curve, equally spaced points and the last one are drawn.
_MAX_POINTS = 400


class Curve(NamedTuple):
    """A curve: its label, its finite points (step, value) in the order of steps, and the index of its colour."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: int


def line_chart(curves: Sequence[Curve], *, title: str, x_label: str = "step") -> str:
    """Draws curves on common axes, with a legend below. Curves without points are left out.

    Args:
      curves: the curves to draw.
      title: the name of the vertical axis.
      x_label: the name of the horizontal axis.
    """
    drawn = [curve for curve in curves if curve.points]
    if not drawn:
        return frame([], height=1, title=title, description="no points")
    xs = [x for curve in drawn for x, _ in curve.points]
    ys = [y for curve in drawn for _, y in curve.points]
    across, up = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))

    def position(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (x - across[0]) / (across[-1] - across[0]) * (_RIGHT - _LEFT),
            _BOTTOM - (y - up[0]) / (up[-1] - up[0]) * (_BOTTOM - _TOP),
        )

    body = []
    for mark in up:
        y = position(across[0], mark)[1]
        body.append(f'<line class="grid" x1="{_LEFT}" y1="{number(y)}" x2="{_RIGHT}" y2="{number(y)}"/>')
        body.append(text(tick_text(mark), x=_LEFT - 6, y=y + 4, kind="tick", anchor="end"))
    for index, mark in enumerate(across):
        anchor = "end" if index == len(across) - 1 else "middle"
        body.append(text(tick_text(mark), x=position(mark, up[0])[0], y=_BOTTOM + 16, kind="tick", anchor=anchor))
    body.append(text(x_label, x=_RIGHT, y=_BOTTOM + 31, kind="tick", anchor="end"))
    for row, curve in enumerate(drawn):
        body.append(_curve(curve, position))
        y = _BOTTOM + 31 + 18 * row
        body.append(f'<rect x="0" y="{y - 8}" width="14" height="4" style="fill:{colour(curve.colour)}"/>')
        body.append(text(f"{curve.label} (last {curve.points[-1][1]:.4g})", x=20, y=y))
    description = "; ".join(
        f"{curve.label} from {curve.points[0][1]:.4g} to {curve.points[-1][1]:.4g}" for curve in drawn
    )
    return frame(body, height=_BOTTOM + 20 + 18 * len(drawn), title=title, description=description)


def _curve(curve: Curve, position) -> str:
    points = list(curve.points)
    if len(points) > _MAX_POINTS:
        points = [*points[:: -(-len(points) // _MAX_POINTS)], points[-1]]
    positions = [position(x, y) for x, y in points]
    path = " ".join(f"{number(x)},{number(y)}" for x, y in positions)
    end = positions[-1]
    return (
        f"<g><title>{escape(curve.label)}</title>"
        f'<polyline points="{path}" style="fill:none;stroke:{colour(curve.colour)};stroke-width:2" '
        'stroke-linejoin="round"/>'
        f'<circle cx="{number(end[0])}" cy="{number(end[1])}" r="3" style="fill:{colour(curve.colour)}"/></g>'
    )
