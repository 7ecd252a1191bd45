"""Pages with measured tables: each table stands between two markers, and only what is between them is rewritten.

    <!-- figures: demo -->
    ...
    <!-- end -->

Markers stand at the beginning of a line of their own.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.figures.results import FiguresError

ROOT = Path(__file__).parents[2]

_BEGIN = re.compile(r"<!-- figures: (\w+) -->")
_END = "<!-- end -->"


def pages(root: Path = ROOT) -> list[Path]:
    """README.md, BUILD.md and the pages of docs/."""
    return [
        file for file in (root / "README.md", root / "BUILD.md", *sorted((root / "docs").glob("*.md"))) if file.exists()
    ]


def rewritten(text: str, markdown: Callable[[str], str], *, page: str) -> str:
    """A page with what stands between its markers made anew.

    Args:
      text: the page.
      markdown: from the name in a marker to what shall stand there.
      page: what errors call it.

    Raises FiguresError, naming the line, for a marker without its end, an end without its marker, and what `markdown`
    raises.
    """
    lines: list[str] = []
    open_at: int | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        begins = _BEGIN.fullmatch(line)
        if begins and open_at is not None:
            raise FiguresError(
                f"{page}, line {number}: the figures of line {open_at} have no {_END} before this marker"
            )
        if line == _END and open_at is None:
            raise FiguresError(f"{page}, line {number}: {_END} without a marker before it")
        if open_at is None or line == _END:
            lines.append(line)
        if begins:
            open_at = number
            made = _made(markdown, begins[1], f"{page}, line {number}").splitlines()
            lines += ["", *made, ""] if made else []
        elif line == _END:
            open_at = None
    if open_at is not None:
        raise FiguresError(f"{page}, line {open_at}: the figures have no {_END}")
    return "\n".join(lines) + "\n"


def stale(markdown: Callable[[str], str], *, root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Each page that the stored results would change, with its new text."""
    for file in pages(root):
        text = file.read_text(encoding="utf-8")
        if (new := rewritten(text, markdown, page=file.name)) != text:
            yield file, new


def _made(markdown: Callable[[str], str], name: str, place: str) -> str:
    try:
        return markdown(name)
    except FiguresError as error:
        raise FiguresError(f"{place}: {error}") from error
