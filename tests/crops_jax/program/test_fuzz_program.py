"""Broken configurations and overrides: refused with status 2, or exactly what was written."""

import dataclasses
import math
from pathlib import Path
from random import Random
from typing import Any

import pytest

from crops_jax import program
from crops_jax.config import Config
from tests import fuzzing
from tests.fuzzing import ACCEPTED, REFUSED

_SECTIONS = [field.name for field in dataclasses.fields(Config)]
_VALUES: list[Any] = [
    None,
    True,
    0,
    1,
    -1,
    3,
    2**40,
    0.5,
    -0.5,
    1e-5,
    math.inf,
    "",
    "mean",
    "bert",
    "x",
    [],
    {},
    (1, 2),
]
_TEXTS = [
    "",
    "0",
    "1",
    "-1",
    "3",
    "0.5",
    "1e-5",
    "nan",
    "inf",
    "mean",
    "bert",
    "True",
    "None",
    "é",
    "x y",
    "--x",
    "1,2",
    "\t",
]
_BROKEN = [
    b"",
    b"CONFIG = 1\n",
    b"CONFIG = None\n",
    b"import nowhere\n",
    b"raise SystemExit(0)\n",
    b"1 / 0\n",
    b"CONFIG = Config(\n",
    b"\xff\xfe\n",
    b"\0",
    b"x = [" * 300,
    b"def CONFIG(): pass\n",
    b"raise KeyboardInterrupt\n".replace(b"KeyboardInterrupt", b"ValueError('no')"),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Arguments:
    records: str
    steps: int = 3
    config: program.ConfigArgument


def _train(arguments: _Arguments) -> dict[str, Any]:
    """A program that takes a configuration."""
    return {}


def _fields(section: str) -> list[str]:
    return [field.name for field in dataclasses.fields(getattr(Config(), section))]


def config_case(generator: Random, folder: Path) -> str:
    """A configuration's module with a field of another value, of another name, or with broken text."""
    file = folder / "changed.py"
    section = generator.choice(_SECTIONS)
    name = generator.choice([*_fields(section), "nonsense"])
    value = generator.choice(_VALUES)
    text = (
        f"from math import inf\nfrom crops_jax.config import Config\n"
        f"CONFIG = Config().replace({section}={{{name!r}: {value!r}}})\n"
    ).encode()
    match generator.randrange(6):
        case 0:
            text = generator.choice(_BROKEN)
        case 1:
            # Damage to the text as a whole; what is left of it may be a program of another meaning, so nothing of it
            # is run but what does not load.
            text = text[: generator.randrange(len(text) - 60)] + b"("
    file.write_bytes(text)
    config = program.load_config(str(file))
    assert isinstance(config, Config)
    found = getattr(getattr(config, section), name)
    assert (type(found), found) == (type(value), value)
    return ACCEPTED


def overrides_case(generator: Random, folder: Path) -> str:
    """A command line of overrides, some of which no field takes."""
    section = generator.choice(_SECTIONS)
    name = generator.choice([*_fields(section), *_fields(section), "nonsense"])
    value = generator.choice(_TEXTS)
    given = [
        "tiny_cpu",
        "--records",
        generator.choice(["records", "", "é"]),
        f"--{section}.{name.replace('_', '-')}",
        value,
    ]
    match generator.randrange(8):
        case 0:
            given.insert(generator.randrange(len(given)), generator.choice(_TEXTS))
        case 1:
            del given[generator.randrange(len(given))]
        case 2:
            given += ["--steps", generator.choice(_TEXTS)]
    try:
        arguments = program.parse(_train, given)
    except SystemExit as error:
        if error.code != 2:
            raise AssertionError(f"status {error.code} for {given}") from error
        return REFUSED
    if f"--{section}.{name.replace('_', '-')}" in given:
        found = getattr(getattr(arguments.config, section), name)
        place = given.index(f"--{section}.{name.replace('_', '-')}")
        written = given[place + 1]
        assert str(found) == written or (isinstance(found, int | float) and float(found) == float(written)), found
    return ACCEPTED


@fuzzing.sizes(config_case)
def test_configurations(number, tmp_path):
    fuzzing.run(config_case, number, tmp_path, accepted=1 / 10, refused=1 / 10)


@fuzzing.sizes(overrides_case)
@pytest.mark.usefixtures("capsys")
def test_overrides(number, tmp_path):
    fuzzing.run(overrides_case, number, tmp_path, refused=0)
