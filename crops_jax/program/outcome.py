"""The outcome of a program for people: a short table, and the commands that come next."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from crops_jax.program.arguments import command_of
from crops_jax.program.terminal import printable

MAX_LINES = 20
"""The maximum number of lines of a table."""
_MAX_COLUMN = 32
"""The maximum width of the column of names; the values of longer names are not aligned."""

_Rows = list[tuple[str, list[str]]]
"""The names of lines, each with its figures, of which a line shows as many as fit."""


def outcome_table(outcome: Mapping[str, Any], *, width: int) -> list[str]:
    """Returns the lines of a table of names and values, at most MAX_LINES.

    A dictionary inside the outcome is one line if it has room there, and else a line for each of its values. Where
    that makes too many lines, the longest parts show the first values of each dictionary, or only their number. Empty
    values are left out.

    Args:
      outcome: the outcome of a program.
      width: the number of columns of a line. Single values, such as paths, are never cut.
    """
    parts = {name: rows for name, value in outcome.items() if (rows := _rows(_words(name), value, width))}
    shortened: set[str] = set()
    while sum(map(len, parts.values())) > MAX_LINES:
        longest = max(parts, key=lambda name: len(parts[name]))
        if len(parts[longest]) == 1:
            break
        if longest in shortened:
            parts[longest] = [(_words(longest), [f"{len(parts[longest])} figures; --json prints them"])]
        else:
            shortened.add(longest)
            parts[longest] = _rows(_words(longest), outcome[longest], width, cut=True)
    rows = [row for part in parts.values() for row in part]
    left_out = len(rows) - MAX_LINES
    if left_out > 0:
        rows = [*rows[: MAX_LINES - 1], ("further", [f"{left_out + 1} figures; --json prints them"])]
    column = min(max((len(name) for name, _ in rows), default=0), _MAX_COLUMN)
    return [f"{name.ljust(column)}  {_fitted(found, width - max(len(name), column) - 2)}" for name, found in rows]


def next_commands(templates: Sequence[str], arguments: Any, outcome: Mapping[str, Any]) -> list[str]:
    """Returns the lines that name the commands that come next; none without templates.

    Args:
      templates: commands that begin with the module of a program, such as "data.mine --logs {output} --output LABELS".
        A name in braces is a field of the arguments or of the outcome, and words in capitals are the user's choice.
      arguments: the arguments of the program, a dataclass.
      outcome: its outcome.
    """
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(arguments)}
    quoted = {name: shlex.quote(str(value)) for name, value in {**outcome, **values}.items()}
    lines = []
    for template in templates:
        module, _, rest = template.partition(" ")
        lines.append(f"    {command_of(module)} {rest.format_map(quoted)}")
    return ["", "next:", *lines] if lines else []


def _rows(name: str, value: Any, width: int, *, cut: bool = False) -> _Rows:
    """Returns the lines of one part of an outcome; `cut`: a dictionary of figures is one line in any case."""
    if isinstance(value, Mapping):
        found = {_words(key): part for key, part in value.items() if part not in (None, {}, [], "")}
        if not any(isinstance(part, Mapping | list | tuple) for part in found.values()):
            line = [f"{key} {_shown(part)}" for key, part in found.items()]
            if line and (cut or len(name) + 2 + len(", ".join(line)) <= width):
                return [(name, line)]
        return [row for key, part in found.items() for row in _rows(f"{name}: {key}", part, width, cut=cut)]
    if isinstance(value, list | tuple):
        if not value:
            return []
        plain = not any(isinstance(part, Mapping | list | tuple) for part in value)
        return [(name, [_shown(part) for part in value] if plain else [f"{len(value)} entries"])]
    return [] if value in (None, "") else [(name, [_shown(value)])]


def _fitted(figures: Sequence[str], room: int) -> str:
    """Returns the first figures in one line, at least one, and "..." for the others."""
    line = figures[0]
    for number, figure in enumerate(figures[1:], start=2):
        rest = 0 if number == len(figures) else len(", ...")
        if len(line) + 2 + len(figure) + rest > room:
            return f"{line}, ..."
        line += f", {figure}"
    return line


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def _words(name: Any) -> str:
    """Returns the name of a field in words; a reason, which has blanks, names columns as they are."""
    shown = printable(str(name))
    return shown if " " in shown else shown.replace("_", " ")
