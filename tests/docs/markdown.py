"""What a Markdown page of this project holds, taken apart: blocks of code, inline code, headings, links and tables."""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "BUILD.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(\w*)$")
_INLINE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$")


@dataclass(frozen=True)
class Page:
    """A page: lines of prose, lines of code, and fenced blocks as (language, text)."""

    prose: list[str]
    code: list[str]
    blocks: list[tuple[str, str]]

    @property
    def inline_code(self) -> list[str]:
        return [" ".join(code.split()) for code in _INLINE.findall("\n".join(self.prose))]

    @property
    def links(self) -> list[str]:
        """Targets of links; links inside inline code are none."""
        return _LINK.findall(_INLINE.sub("", "\n".join(self.prose)))

    @property
    def anchors(self) -> set[str]:
        """The anchors of headings, as GitHub makes them."""
        headings = [found[1] for line in self.prose if (found := _HEADING.match(line))]
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    @property
    def table_cells(self) -> Iterator[str]:
        """Cells of tables, without inline code."""
        for line in self.prose:
            if line.startswith("|"):
                yield from (cell.strip() for cell in _INLINE.sub("", line).strip("|").split("|"))

    @property
    def command_lines(self) -> Iterator[list[str]]:
        """Everything that may be a command, as words: lines of code, and inline code."""
        yield from self.code_lines
        yield from _as_words(self.inline_code)

    @property
    def code_lines(self) -> Iterator[list[str]]:
        """The lines of indented code, as words."""
        yield from _as_words("\n".join(self.code).replace("\\\n", " ").splitlines())


def parsed(text: str) -> Page:
    """A page from its text. Lines that four blanks or more begin are code."""
    prose, code, blocks = [], [], []
    language: str | None = None
    fenced: list[str] = []
    for line in text.splitlines():
        fence = _FENCE.match(line)
        if fence and language is None:
            language, fenced = fence[1], []
        elif fence:
            blocks.append((language or "", "\n".join(fenced) + "\n"))
            language = None
        elif language is not None:
            fenced.append(line)
        elif line.startswith("    "):
            code.append(line)
        else:
            prose.append(line)
    return Page(prose, code, blocks)


def read(page: Path) -> Page:
    return parsed(page.read_text(encoding="utf-8"))


def _as_words(lines: Iterable[str]) -> Iterator[list[str]]:
    for line in lines:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # an unclosed quote: no command
            continue
        if words:
            yield words
