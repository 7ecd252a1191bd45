"""Numbers and tables as Markdown, written one way on all pages."""

from collections.abc import Mapping, Sequence
from typing import Any

ABSENT = "-"


def number(value: float | None, *, digits: int = 3) -> str:
    """A number with a fixed count of decimal places, or a dash for None."""
    return ABSENT if value is None else f"{value:.{digits}f}"


def signed(value: float | None, *, digits: int = 3) -> str:
    """A difference, with its sign."""
    return ABSENT if value is None else f"{value:+.{digits}f}"


def amount(value: float | None) -> str:
    """A whole number with commas between thousands."""
    return ABSENT if value is None else f"{round(value):,}"


def interval(figure: Mapping[str, Any] | None) -> str:
    """A value with its 95 % interval where it has one."""
    if figure is None:
        return ABSENT
    if figure.get("low") is None:
        return number(figure["value"])
    return f"{number(figure['value'])} ({number(figure['low'])} to {number(figure['high'])})"


def signed_interval(figure: Mapping[str, Any]) -> str:
    """A difference with its 95 % interval."""
    return f"{signed(figure['value'])} ({signed(figure['low'])} to {signed(figure['high'])})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table. Raises ValueError where a row has another number of cells than the header."""
    if wrong := [row for row in rows if len(row) != len(header)]:
        raise ValueError(f"a row has {len(wrong[0])} cells under a header of {len(header)}: {wrong[0]}")
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def reached(value: float | None, *, at_least: float | None = None, at_most: float | None = None) -> str:
    """Whether a value reaches its aim: yes, no, or a dash where there is no aim or no value."""
    if value is None or (at_least is None and at_most is None):
        return ABSENT
    return "yes" if (at_least is None or value >= at_least) and (at_most is None or value <= at_most) else "no"
