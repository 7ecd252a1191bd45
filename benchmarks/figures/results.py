"""Stored results: one small JSON file for each measurement, with everything that a reader needs to repeat it."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal, get_args

FOLDER = Path(__file__).parents[1] / "results"

Kind = Literal["pipeline", "outcomes", "facts"]


class FiguresError(Exception):
    """A result or a page that cannot be used. The message names the file, what was found and what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine that a result was measured on."""

    processor: str
    cores: int
    device: str
    """The kind of JAX's devices, such as cpu."""
    note: str = ""
    """A full sentence about what else decided the speed, or nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One measurement. Raises FiguresError where a field is empty that has to be filled."""

    title: str
    kind: Kind
    """pipeline: the figures of one work directory. outcomes: the outcome lines of a program. facts: rows of text."""
    commands: tuple[str, ...]
    """The command lines that measure it again, in order; empty where they were not recorded."""
    machine: Machine
    date: str
    """The day of the measurement, as in 2026-11-29."""
    commit: str
    """The Git commit of the code that was measured; "+changes" behind it where files differed from it."""
    recorded: str
    """How the values came into this file, as the end of the sentence "The values were recorded ..."."""
    packages: dict[str, str]
    """Versions by package name."""
    values: dict[str, Any]
    remarks: tuple[str, ...] = ()
    """Sentences about this measurement alone. A new measurement drops them."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise FiguresError(f"kind {self.kind!r} is none of {', '.join(get_args(Kind))}")
        for name in ("title", "date", "commit", "recorded", "packages", "values"):
            if not getattr(self, name):
                raise FiguresError(f"field {name} is empty")


def read_result(name: str, *, folder: Path = FOLDER) -> Result:
    """The stored result of a name. Raises FiguresError where its file is missing or is not a result."""
    file = result_file(name, folder=folder)
    if not file.is_file():
        raise FiguresError(f"{file} is missing; store it with `python -m benchmarks.figures store {name}`")
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        lists = {field: tuple(fields[field]) for field in ("commands", "remarks") if field in fields}
        return Result(**{**fields, **lists, "machine": Machine(**fields["machine"])})
    except (ValueError, TypeError, KeyError, FiguresError) as error:
        raise FiguresError(f"{file} is not a stored result ({error}); correct it or store it again") from error


def write_result(name: str, result: Result, *, folder: Path = FOLDER) -> Path:
    """Writes a result under its name and returns the file."""
    file = result_file(name, folder=folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dataclasses.asdict(result), indent=2, ensure_ascii=False, allow_nan=False)
    file.write_text(text + "\n", encoding="utf-8")
    return file


def result_file(name: str, *, folder: Path = FOLDER) -> Path:
    """The file of a name. Raises FiguresError for a name that is not made of letters, digits and underscores."""
    if not name.isidentifier():
        raise FiguresError(f"{name!r} is no name of a result; use letters, digits and underscores")
    return folder / f"{name}.json"
