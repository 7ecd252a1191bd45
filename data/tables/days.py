"""Tables kept by day: folders day=YYYY-MM-DD of UTC days within the folder of a table, as Hive names partitions."""

import datetime
import re
from collections.abc import Sequence
from pathlib import Path

import duckdb

from crops_jax.errors import InputError

DaySpan = tuple[datetime.date, datetime.date]
"""First and last day, both inside."""

_FOLDER = re.compile(r"day=(.*)", re.DOTALL)


def of_days(table: str, place: Path, files: Sequence[Path], days: DaySpan) -> list[Path]:
    """The files of a table that may hold events of some days: those in these days' folders, and in no day's folder.

    Args:
      table: its name.
      place: its folder.
      files: all of its files.
      days: the last of them needs a folder where the table is kept by day at all; earlier ones may be before the log.

    Raises:
      InputError: a folder that is no day, or no folder for the last day.
    """
    by_day = {file: _day(table, file.relative_to(place)) for file in files}
    first, last = days
    if any(by_day.values()) and last not in by_day.values():
        raise InputError(
            f"table {table}: {place} has no folder day={last} with files in it; wait until the day is there, or write "
            "a file without rows"
        )
    return [file for file, day in by_day.items() if day is None or first <= day <= last]


def misplaced(connection: duckdb.DuckDBPyConnection, view: str) -> tuple[int, dict | None]:
    """Returns the number of rows of a view with file, row and time that are in another day's folder, and the first
    one.
    """
    of_folder = "regexp_extract(file, '/day=([0-9-]+)/', 1)"
    row = connection.execute(
        f"SELECT count(*), min({{'file': file, 'row': row, 'time': CAST(time AS VARCHAR)}}) FROM {view} "
        f"WHERE {of_folder} <> '' AND {of_folder} <> CAST(CAST(time AS DATE) AS VARCHAR)"
    ).fetchall()[0]
    return row[0], row[1]


def parse_day(text: str, *, argument: str) -> datetime.date:
    """A day from YYYY-MM-DD. Raises InputError naming the argument."""
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            raise ValueError("it has another form")
        day = datetime.date.fromisoformat(text)
        if not datetime.date(1, 1, 3) <= day <= datetime.date(9999, 12, 29):
            raise ValueError("it is out of range")
    except ValueError as error:
        raise InputError(f"{argument} {text!r} is no day ({error}); write YYYY-MM-DD, as in 2024-05-31") from error
    return day


def _day(table: str, path: Path) -> datetime.date | None:
    for part in path.parts[:-1]:
        if found := _FOLDER.fullmatch(part):
            return parse_day(found[1], argument=f"table {table}: folder {part}: the day")
    return None
