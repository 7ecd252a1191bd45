"""Tables kept by day: folders day=YYYY-MM-DD of UTC days within the folder of a table, as Hive names partitions."""

import datetime
import re
from collections.abc import Sequence
from pathlib import Path

import duckdb

from crops_jax.errors import InputError

DaySpan = tuple[datetime.date, datetime.date]
"""The first and the last day of an interval, both included."""

_FOLDER = re.compile(r"day=(.*)", re.DOTALL)


def of_days(table: str, place: Path, files: Sequence[Path], days: DaySpan) -> list[Path]:
    """Returns the files of a table that can hold events of the days: those in the days' folders or in no day's folder.

    Args:
      table: the table's name.
      place: the table's folder.
      files: all files of the table.
      days: the days. If the table is kept by day, the last day must have a folder; earlier days can be before the log.

    Raises:
      InputError: the name of a folder is not a day, or the last day has no folder.
    """
    by_day = {file: _day(table, file.relative_to(place)) for file in files}
    first, last = days
    if any(by_day.values()) and last not in by_day.values():
        raise InputError(
            f"table {table}: {place} has no folder day={last} with files in it; wait until the day is complete, or "
            "write a file without rows"
        )
    return [file for file, day in by_day.items() if day is None or first <= day <= last]


def misplaced(connection: duckdb.DuckDBPyConnection, view: str) -> tuple[int, dict | None]:
    """Returns the number of rows that are in the folder of a day other than that of their time, and the first such row.

    Args:
      connection: the DuckDB connection that has the view.
      view: the name of a view with the columns file, row and time.
    """
    day_of_folder = "regexp_extract(file, '/day=([0-9-]+)/', 1)"
    row = connection.execute(
        f"SELECT count(*), min({{'file': file, 'row': row, 'time': CAST(time AS VARCHAR)}}) FROM {view} "
        f"WHERE {day_of_folder} <> '' AND {day_of_folder} <> CAST(CAST(time AS DATE) AS VARCHAR)"
    ).fetchall()[0]
    return row[0], row[1]


def parse_day(text: str, *, argument: str) -> datetime.date:
    """Returns the day of a text YYYY-MM-DD. Raises InputError with the argument's name if the text is not a day."""
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
        if match := _FOLDER.fullmatch(part):
            return parse_day(match[1], argument=f"table {table}: folder {part}: the day")
    return None
