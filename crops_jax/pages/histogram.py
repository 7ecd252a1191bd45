"""A chart of horizontal bars with their counts beside them, such as the number of labels of each level."""

from collections.abc import Sequence
from html import escape

from crops_jax.pages.frame import WIDTH, colour, frame, number, text

_LEFT, _RIGHT = 150, WIDTH - 62
_ROW, _BAR = 27, 15
# With this width the bar of one among a million is still visible.
_MIN_WIDTH = 1.5


def histogram(counts: Sequence[tuple[str, int]], *, title: str, colour_at: int = 0) -> str:
    """Draws bars in the order of `counts`, on a linear axis from 0.

    Args:
      counts: the label and the count of each bar.
      title: the name of what is counted.
      colour_at: the index of the bars' colour.
    """
    maximum = max((count for _, count in counts), default=0)
    body = []
    for row, (label, count) in enumerate(counts):
        y = _ROW * row
        width = max(_MIN_WIDTH, (_RIGHT - _LEFT) * count / maximum) if count else 0.0
        body.append(
            f"<g><title>{escape(f'{label}: {count:,}')}</title>"
            + text(label, x=0, y=y + 18)
            + f'<rect x="{_LEFT}" y="{y + 6}" width="{number(width)}" height="{_BAR}" rx="2" '
            f'style="fill:{colour(colour_at)}"/>'
            + text(f"{count:,}", x=_LEFT + width + 6, y=y + 18, kind="value")
            + "</g>"
        )
    description = "; ".join(f"{label} {count:,}" for label, count in counts)
    return frame(body, height=_ROW * len(counts) + 4, title=title, description=description)
