"""What --help shows of the fields of arguments, and that the command line accepts what it did."""

import re
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import pytest
import tyro

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


@dataclass(frozen=True, kw_only=True)
class Inner:
    share: float = 0.5
    """The share."""
    seed: int = 0
    """The seed."""
    FLAG_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"advanced": ("seed",)}


@dataclass(frozen=True, kw_only=True)
class GroupedArguments:
    logs: str
    """What is read."""
    from_: Annotated[str, tyro.conf.arg(name="from")] = "start"
    """Where it starts."""
    memory: int | None = None
    """How much may be held."""
    inner: Annotated[Inner, tyro.conf.arg(name="")] = field(default_factory=Inner)
    FLAG_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"input": ("logs", "from_"), "advanced": ("memory",)}


def grouped(arguments: GroupedArguments) -> dict:
    """Reads rows in groups."""
    return {"logs": arguments.logs}


def test_flags_are_shown_in_their_groups(capsys):
    with pytest.raises(SystemExit):
        parse(grouped, ["--help"])
    boxes: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if title := re.match(r"[╭─ ]+((?:\w+ )?options)\b", line):
            box = boxes.setdefault(title[1], [])
        elif flag := re.match(r"[│ ]+(--[a-z]\S*)", line):
            box.append(flag[1])
    assert {title: sorted(flags) for title, flags in boxes.items()} == {
        "options": ["--json", "--share"],
        "input options": ["--from", "--logs"],
        "advanced options": ["--memory", "--seed"],
    }
    assert list(boxes) == ["options", "input options", "advanced options"]


def test_flags_in_groups_are_accepted_without_a_prefix(capsys):
    words = ["--logs", "a", "--from", "b", "--memory", "3", "--seed", "4", "--share", "0.25"]
    expected = GroupedArguments(logs="a", from_="b", memory=3, inner=Inner(share=0.25, seed=4))
    assert parse(grouped, words) == expected
    assert parse(grouped, ["--logs", "a"]) == GroupedArguments(logs="a")
    with pytest.raises(SystemExit) as ended:
        parse(grouped, ["--seed", "4"])
    assert ended.value.code == 2
    assert "--logs" in capsys.readouterr().err
