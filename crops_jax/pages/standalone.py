"""One SVG file of several charts, which is shown outside a page, such as in a README. It is readable in light and dark.

The charts are those of the other files of this folder. The file holds the colours of the pages, so it loads nothing.
"""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from crops_jax.pages.frame import WIDTH, number

_THEME = Path(__file__).with_name("theme.css")
_GAP, _HEADING, _TITLE = 32, 26, 62
_FRAME = re.compile(r'<svg class="chart" viewBox="0 0 360 ([\d.]+)"')
_FONT = 'svg { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }'
_HEADINGS = """.heading { font-size: 14px; font-weight: 600; }
.title { font-size: 17px; font-weight: 600; }
.note { fill: var(--quiet); }"""


def standalone(charts: Sequence[tuple[str, str]], *, title: str, note: str, columns: int = 3) -> str:
    """Returns an SVG file with charts in rows.

    Args:
      charts: the heading and the markup of each chart.
      title: what the picture shows.
      note: a line below the title, such as what the intervals are.
      columns: the number of charts in a row.

    Raises:
      ValueError: there is no chart, or a markup is no chart of this package.
    """
    if not charts:
        raise ValueError("a picture needs at least one chart")
    body, top = [], float(_GAP / 2 + _TITLE)
    for start in range(0, len(charts), columns):
        row = charts[start : start + columns]
        heights = [_height(chart) for _, chart in row]
        for place, ((heading, chart), height) in enumerate(zip(row, heights, strict=True)):
            x = number(_GAP / 2 + place * (WIDTH + _GAP))
            body.append(f'<text class="heading" x="{x}" y="{number(top + 12)}">{escape(heading)}</text>')
            placed = (
                f'<svg class="chart" x="{x}" y="{number(top + _HEADING)}" width="{WIDTH}" height="{number(height)}"'
            )
            body.append(chart.replace('<svg class="chart"', placed, 1))
        top += _HEADING + max(heights) + _GAP / 2
    width = min(columns, len(charts)) * (WIDTH + _GAP)
    style = f"{_THEME.read_text(encoding='utf-8').strip()}\n{_FONT}\ntext {{ fill: var(--ink); }}\n{_HEADINGS}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {number(top)}" width="{width}" '
        f'height="{number(top)}" role="img" aria-label="{escape(title, quote=True)}">\n<style>\n{style}\n</style>\n'
        f'<rect width="100%" height="100%" style="fill:var(--card)"/>\n'
        f'<text class="title" x="{_GAP // 2}" y="34">{escape(title)}</text>\n'
        f'<text class="note" x="{_GAP // 2}" y="54">{escape(note)}</text>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _height(chart: str) -> float:
    found = _FRAME.match(chart)
    if found is None:
        raise ValueError(f"no chart: {chart[:60]}")
    return float(found[1])
