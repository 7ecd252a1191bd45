"""What --help shows of the fields of arguments, and that the command line accepts what it did."""

from dataclasses import dataclass
from typing import Literal

import pytest

from crops_jax.program import parse


@dataclass(frozen=True, kw_only=True)
class Arguments:
    limit: int | None = None
    """The maximum number of rows that are read. By default all rows are read, however many there are, and
    --side decides which of them come first.
    (The order of equal rows is that of the file.)"""
    rates: tuple[float, ...] | None = None
    """The rates that are tried."""
    start: Literal["catalogue", "none"] | None = None
    """What training starts from."""
    side: str = "left"
    """The side that is read first."""


def program(arguments: Arguments) -> dict:
    """Reads rows."""
    return {"limit": arguments.limit}


@pytest.fixture
def shown(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(program, ["--help"], example="python -m program")
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_types_are_shown_without_none(shown):
    assert "--limit INT" in shown
    assert "--rates [FLOAT [FLOAT ...]]" in shown
    assert "--start {catalogue,none}" in shown
    assert "{None" not in shown


def test_sentences_are_shown_as_a_paragraph(shown):
    words = " ".join(line.strip("│ ") for line in shown.splitlines())
    assert "however many there are, and --side decides which of them come first. (The order" in " ".join(words.split())
    # No line ends early because the docstring had a line there.
    lines = [line.strip("│ ") for line in shown.splitlines() if line.startswith("│")]
    assert "--side decides which of them come first." not in lines


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], Arguments()),
        (["--limit", "3", "--rates", "0.5", "2", "--start", "none"], Arguments(limit=3, rates=(0.5, 2), start="none")),
        (["--limit", "None", "--rates", "None", "--start", "None"], Arguments()),
    ],
)
def test_the_command_line_accepts_what_it_did(words, expected):
    assert parse(program, words) == expected


def test_what_is_no_value_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(program, ["--limit", "many"])
    assert ended.value.code == 2
    assert "--limit" in capsys.readouterr().err
