"""A chart of bars of equal length, cut into parts, which compares shares between rows with different totals."""

from collections.abc import Sequence
from html import escape

from crops_jax.pages.frame import WIDTH, colour, frame, number, text

_LEFT, _RIGHT = 108, WIDTH - 56
_ROW, _BAR, _LEGEND = 30, 18, 20
# A narrower part has no room for its percentage.
_MIN_TEXT_WIDTH = 34


def stacked_shares(rows: Sequence[tuple[str, Sequence[int]]], *, parts: Sequence[str], title: str) -> str:
    """Draws the shares of each row's total in the order of the parts, with a legend below and the totals at the side.

    Args:
      rows: the label of each bar and its counts, one for each part. A row whose counts are all 0 has no bar.
      parts: the names of the parts. The index of a part is also that of its colour.
      title: the name of what is divided.
    """
    body = [_bar(label, counts, parts, y=_ROW * row) for row, (label, counts) in enumerate(rows)]
    top = _ROW * len(rows) + 8
    for index, part in enumerate(parts):
        y = top + _LEGEND * index
        body.append(f'<rect x="0" y="{y}" width="12" height="12" rx="2" style="fill:{colour(index)}"/>')
        body.append(text(part, x=20, y=y + 10))
    description = "; ".join(
        f"{label}, {sum(counts):,} in all: " + ", ".join(f"{part} {count:,}" for part, count in zip(parts, counts))
        for label, counts in rows
    )
    return frame(body, height=top + _LEGEND * len(parts), title=title, description=description)


def _bar(label: str, counts: Sequence[int], parts: Sequence[str], *, y: float) -> str:
    total = sum(counts)
    drawn = [text(label, x=0, y=y + 19), text(f"{total:,}", x=WIDTH, y=y + 19, kind="value", anchor="end")]
    start = float(_LEFT)
    for index, (part, count) in enumerate(zip(parts, counts, strict=True)):
        if not count:
            continue
        width = (_RIGHT - _LEFT) * count / total
        drawn.append(
            f"<g><title>{escape(f'{label}, {part}: {count:,} of {total:,}')}</title>"
            f'<rect x="{number(start)}" y="{y + 6}" width="{number(width)}" height="{_BAR}" '
            f'style="fill:{colour(index)};stroke:var(--card);stroke-width:1"/>'
        )
        if width >= _MIN_TEXT_WIDTH:
            drawn.append(
                f'<text x="{number(start + width / 2)}" y="{y + 19}" text-anchor="middle" '
                f'style="fill:var(--card)">{100 * count / total:.0f} %</text>'
            )
        drawn.append("</g>")
        start += width
    return "".join(drawn)
