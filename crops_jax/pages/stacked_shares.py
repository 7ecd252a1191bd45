"""One bar a row, all equally long, cut into parts: how shares compare between rows of different size."""

from collections.abc import Sequence
from html import escape

from crops_jax.pages.frame import WIDTH, colour, frame, number, text

_LEFT, _RIGHT = 108, WIDTH - 56
_ROW, _BAR, _LEGEND = 30, 18, 20
# A narrower part has no room for its percentage, which is in its title.
_ROOM = 34


def stacked_shares(rows: Sequence[tuple[str, Sequence[int]]], *, parts: Sequence[str], title: str) -> str:
    """Shares of each row's total, in the order of the parts, with a legend below and the totals beside.

    Args:
      rows: label and counts of each bar, one count a part. A row without any count has no bar.
      parts: names of the parts; a part's colour is that of its place.
      title: what is divided.
    """
    body = [_bar(label, counts, parts, y=_ROW * row) for row, (label, counts) in enumerate(rows)]
    top = _ROW * len(rows) + 8
    for at, part in enumerate(parts):
        y = top + _LEGEND * at
        body.append(f'<rect x="0" y="{y}" width="12" height="12" rx="2" style="fill:{colour(at)}"/>')
        body.append(text(part, x=20, y=y + 10))
    said = "; ".join(
        f"{label}, {sum(counts):,} in all: " + ", ".join(f"{part} {count:,}" for part, count in zip(parts, counts))
        for label, counts in rows
    )
    return frame(body, height=top + _LEGEND * len(parts), title=title, description=said)


def _bar(label: str, counts: Sequence[int], parts: Sequence[str], *, y: float) -> str:
    total = sum(counts)
    drawn = [text(label, x=0, y=y + 19), text(f"{total:,}", x=WIDTH, y=y + 19, kind="value", anchor="end")]
    start = float(_LEFT)
    for at, (part, count) in enumerate(zip(parts, counts, strict=True)):
        if not count:
            continue
        width = (_RIGHT - _LEFT) * count / total
        drawn.append(
            f"<g><title>{escape(f'{label}, {part}: {count:,} of {total:,}')}</title>"
            f'<rect x="{number(start)}" y="{y + 6}" width="{number(width)}" height="{_BAR}" '
            f'style="fill:{colour(at)};stroke:var(--card);stroke-width:1"/>'
        )
        if width >= _ROOM:
            drawn.append(
                f'<text x="{number(start + width / 2)}" y="{y + 19}" text-anchor="middle" '
                f'style="fill:var(--card)">{100 * count / total:.0f} %</text>'
            )
        drawn.append("</g>")
        start += width
    return "".join(drawn)
