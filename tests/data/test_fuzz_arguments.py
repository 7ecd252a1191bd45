"""Command lines of the programs of data/: refused with status 2 before anything is read, or taken word for word."""

import importlib
import typing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from crops_jax import program
from tests import fuzzing
from tests.fuzzing import ACCEPTED, REFUSED

_PROGRAMS = {
    "data.hold_out": ("hold_out", ["--logs", "l", "--output", "o", "--from", "2024-01-01"]),
    "data.mine": ("mine", ["--logs", "l", "--output", "o"]),
    "data.pretraining_pairs": ("pretraining_pairs", ["--logs", "l", "--output", "o"]),
    "data.write_records": ("write_records", ["--labels", "a", "--logs", "l", "--output", "o"]),
    "data.synthesize": ("synthesize", ["--logs", "l", "--output", "o", "--base-url", "http://h/v1", "--model", "m"]),
    "data.convert": ("convert", ["--source", "beir", "--input", "i", "--output", "o"]),
    "data.simulate": ("simulate", ["--output", "o"]),
    "data.inspect": ("inspect", ["p"]),
}
_TEXTS = [
    "",
    "0",
    "1",
    "-1",
    "0.5",
    "nan",
    "1e400",
    "10000000000000000000000",
    "é",
    "\ud800",
    "a b",
    "--x",
    "-",
    "None",
]
_TEXTS += ["True", "fail", "quarantine", "skip", "2024-01-01", "group", "[]", "{}", "x" * 5000, "\t", "'", "\\"]


def arguments_case(generator: Random, folder: Path) -> str:
    name = generator.choice(sorted(_PROGRAMS))
    function_name, given = _PROGRAMS[name]
    function = getattr(importlib.import_module(name), function_name)
    kind = next(kind for parameter, kind in typing.get_type_hints(function).items() if parameter == "arguments")
    flags = ["--" + name.rstrip("_").replace("_", "-") for name in _names(kind)]
    line, added = list(given), []
    for _ in range(generator.choice([1, 1, 2, 3])):
        added.append((generator.choice([*flags, *flags, *flags, "--nonsense", "-x"]), generator.choice(_TEXTS)))
        line += added[-1]
    if generator.random() < 0.15:
        del line[generator.randrange(len(line))]
    try:
        arguments = program.parse(function, line)
    except SystemExit as error:
        if error.code != 2:
            raise AssertionError(f"status {error.code} for {line}") from error
        return REFUSED
    if len(line) == len(given) + 2 * len(added):
        for flag, text in dict(added).items():
            assert _is_what_was_written(arguments, flag, text, line), (line, arguments)
    return ACCEPTED


def _names(kind: type) -> list[str]:
    """The fields of a dataclass of arguments; those of its parameters are flags like its own."""
    kinds = typing.get_type_hints(kind)
    nested = kinds.pop("parameters", None)
    return [*kinds, *(_names(nested) if nested else [])]


def _is_what_was_written(arguments: Any, flag: str, text: str, line: list[str]) -> bool:
    name = flag.removeprefix("--").replace("-", "_")
    places = [arguments, getattr(arguments, "parameters", None)]
    (found,) = [getattr(place, each) for place in places for each in (name, f"{name}_") if hasattr(place, each)]
    if isinstance(found, bool):
        return flag in line
    if isinstance(found, int | float):
        return float(found) == float(text) or found != found
    return found is None or found == text


@fuzzing.sizes(arguments_case)
@pytest.mark.usefixtures("capsys")
def test_command_lines(number, tmp_path):
    fuzzing.run(arguments_case, number, tmp_path, accepted=0, refused=0)
