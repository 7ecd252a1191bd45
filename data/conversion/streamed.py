"""Sources that can be larger than memory: raw files are DuckDB views, and log tables are queries over them.

An adapter names the files, the columns it needs, and one query for each log table. Files are scanned, not loaded; of
JSON Lines and CSV, the columns that are needed are kept in DuckDB. Intermediate tables spill to the system's temporary
directory, and accepted rows are written batch by batch.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa

from crops_jax.errors import InputError, one_line
from data.backends.sql import quoted_name
from data.conversion.csv_rows import load_csv_rows
from data.conversion.json_lines import has_key, json_keys, load_json_lines
from data.conversion.layouts import Layout, Part, parts, reader

ROWS_AT_ONCE = 1 << 18


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """Files of one layout, which are read as one view with the columns `columns` and `optional` in their SQL types.

    The columns are those of all files: a column can be absent from some of them, and its type can differ.

    files: patterns below the source's folder. The first pattern with a match is used, with all its matches by name.
    columns: name in the view -> SQL type. The name `a|b` reads the first of a and b that has a value, as column a.
    optional: the same for columns that the files can lack; the view then has typed nulls.
    required: False if the files themselves can be missing.
    layout: "csv" has a header and double quotes, and commas, semicolons, tabs or bars between values; "tsv" has neither
      header nor quotes, and `columns` are its fields in order; "jsonl" has one object on each line, in which `a.b` is
      the key b of the object a. csv, tsv and jsonl can be gzipped.
    feeds: the log table under which lines of jsonl and csv that are left out are counted.
    mapped_by: the user's file that names the columns, for messages; None if the source is published with them.
    """

    files: tuple[str, ...]
    layout: Layout
    columns: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)
    required: bool = True
    feeds: str = "documents"
    mapped_by: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """The raw files of a source by view name, and the query that makes each log table from them.

    The queries can call `normalise_query(text)`; times are in UTC. A query can have a column "unread COLUMN": the text
    of a value that is there and that its COLUMN could not be read from.
    counts: (table, reason) -> a query for the number of rows that the adapter itself leaves out.
    left_empty: (table, reason) -> a query for the number of values that cannot be read and that are left empty.
    """

    folder: Path
    raw: Mapping[str, RawTable]
    queries: Mapping[str, str]
    counts: Mapping[tuple[str, str], str] = field(default_factory=dict)
    left_empty: Mapping[tuple[str, str], str] = field(default_factory=dict)


def raw_files(folder: Path, table: RawTable) -> list[Path]:
    """Returns the files of a raw table; none if they are optional. Raises InputError if required files are missing."""
    if not folder.is_dir():
        raise InputError(f"--input {folder}: no such directory; give the folder of the source's files")
    for pattern in table.files:
        if found := sorted(file for file in folder.glob(pattern) if file.is_file()):
            return found
    if not table.required:
        return []
    present = ", ".join(sorted(file.name for file in folder.iterdir())[:20]) or "nothing"
    raise InputError(f"{folder}: no file {' or '.join(table.files)}, it holds {present}; check --input and --source")


def add_raw_view(connection: duckdb.DuckDBPyConnection, folder: Path, name: str, table: RawTable) -> dict[str, int]:
    """Makes the view NAME with typed columns.

    For messages it also makes, for each run of files with the same columns, "as read NAME NUMBER" with the files' own
    values.

    Returns:
      reason -> the number of lines of JSON Lines and CSV that are left out.

    Raises:
      InputError: a file is damaged, a required column is in none of the files, or a file has a column twice.
    """
    files = raw_files(folder, table)
    types = {**table.columns, **table.optional}
    left_out: dict[str, int] = {}
    if not files:
        empty = ", ".join(f"CAST(NULL AS {kind}) AS {quoted_name(_shown(column))}" for column, kind in types.items())
        connection.execute(f"CREATE VIEW {quoted_name(name)} AS SELECT {empty} WHERE false")
        return left_out
    if table.layout == "jsonl":
        runs, left_out = _json_parts(connection, folder, name, table, files, types)
    else:
        runs = parts(files, table.layout, [_shown(column) for column in table.columns])
        _check_columns(folder, table, [column for part in runs for column in part.columns])
    branches = []
    for number, part in enumerate(runs):
        view = quoted_name(f"as read {name} {number}")
        if table.layout == "csv":
            needed = dict.fromkeys(found for column in types for found in part.found(column))
            left_out |= load_csv_rows(connection, view, part, list(needed))
        elif table.layout != "jsonl":
            connection.execute(f"CREATE VIEW {view} AS SELECT * FROM {reader(connection, name, number, part)}")
        selected = ", ".join(
            f"{_cast(part, column, kind)} AS {quoted_name(_shown(column))}" for column, kind in types.items()
        )
        where = " WHERE broken IS NULL" if table.layout == "jsonl" else ""
        branches.append(f"SELECT {selected} FROM {view}{where}")
    connection.execute(f"CREATE VIEW {quoted_name(name)} AS {' UNION ALL '.join(branches)}")
    return left_out


def _shown(column: str) -> str:
    return column.split("|")[0]


def _cast(part: Part, column: str, kind: str) -> str:
    """Returns the SQL of a column in its type: the first of its names that has a value."""
    values = [part.text(found) if kind == "VARCHAR" else part.value(found) for found in part.found(column)]
    if kind.endswith("[]") and part.layout == "jsonl":
        values = [_listed(value) for value in values]
    value = "NULL" if not values else values[0] if len(values) == 1 else f"coalesce({', '.join(values)})"
    return f"CAST({value} AS {kind})"


def _listed(value: str) -> str:
    """Returns the SQL of a list from JSON; a single value is a list of one, and an empty list has no value."""
    listed = f"from_json({value}, '[\"VARCHAR\"]')"
    return f"CASE WHEN {value} LIKE '[%' THEN {listed} WHEN {value} <> '' THEN [{value}] END"


def _json_parts(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    name: str,
    table: RawTable,
    files: list[Path],
    types: Mapping[str, str],
) -> tuple[list[Part], dict[str, int]]:
    asked = {alternative: kind for column, kind in types.items() for alternative in column.split("|")}
    view = quoted_name(f"as read {name} 0")
    left_out = load_json_lines(connection, view, files, asked)
    counts = connection.execute(
        f"SELECT {', '.join(f'count({quoted_name(column)})' for column in asked)} FROM {view}"
    ).fetchall()[0]
    filled = {column for column, number in zip(asked, counts, strict=True) if number}
    if any(filled.isdisjoint(column.split("|")) for column in table.columns):
        keys = json_keys(connection, files)
        _check_columns(folder, table, [*keys, *(column for column in asked if has_key(keys, column))])
    return [Part(files=tuple(files), layout="jsonl", columns=tuple(asked))], left_out


def _check_columns(folder: Path, table: RawTable, present: Sequence[str]) -> None:
    exact = table.layout == "jsonl"
    known = set(present) | (set() if exact else {column.casefold() for column in present})
    for column in table.columns:
        alternatives = column.split("|")
        if known.isdisjoint(alternatives if exact else [*alternatives, *map(str.casefold, alternatives)]):
            close = next((other for other in present if other.casefold() in map(str.casefold, alternatives)), None)
            listed = ", ".join(dict.fromkeys(present)) or "none"
            if table.mapped_by is not None:
                raise InputError(
                    f"{folder / table.files[0]}: column {column}, which {table.mapped_by} maps, is missing; it has "
                    f"{listed}; {f'write {close} in' if close else 'correct'} the mapping"
                )
            raise InputError(
                f"{raw_files(folder, table)[0]}: column {' or '.join(alternatives)} is missing, it has {listed}; "
                f"{f'rename {close}' if close else 'get the file again'}"
            )


def reading_error(connection: duckdb.DuckDBPyConnection, source: Streamed, error: Exception) -> str:
    """Returns a message with file and column: the first value that has not its column's type, else DuckDB's message."""
    for name, table in source.raw.items():
        files = raw_files(source.folder, table)
        if not files:
            continue
        for column, kind in {**table.columns, **table.optional}.items():
            if kind == "VARCHAR":
                continue
            for number in range(len(files)):
                for alternative in column.split("|"):
                    if wrong := _wrong_value(connection, f"as read {name} {number}", alternative, kind, table.layout):
                        line, value = wrong
                        problem = f"column {alternative} holds {value!r:.80}, which is no {kind}"
                        if line is None:
                            return f"{files[0]}: {problem}; get the file again"
                        place = f"{files[line['file']]}, line {line['line']}"
                        return (
                            f"{source.folder}: does not hold what the source publishes ({place}: {problem}); "
                            "correct it, or get it again"
                        )
    # DuckDB's message ends with advice about its own options, followed by the name of a CSV file.
    file = re.search(r"^\s*file\s*=\s*(.+)$", str(error), re.MULTILINE)
    message = one_line(re.split("Possible (?:fixes|Solution)|\nLINE 1:", str(error))[0], limit=400)
    place = file.group(1).strip() if file else source.folder
    return f"{place}: does not hold what the source publishes ({message}); get it again"


def _wrong_value(
    connection: duckdb.DuckDBPyConnection, view: str, column: str, kind: str, layout: Layout
) -> tuple[dict | None, str] | None:
    """Returns the place (of JSON Lines) and the text of the first value of another type; None if there is none."""
    place = "{'file': file, 'line': line}" if layout == "jsonl" else "NULL"
    value = _listed(quoted_name(column)) if layout == "jsonl" and kind.endswith("[]") else quoted_name(column)
    try:
        found = connection.execute(
            f"SELECT {place}, CAST({quoted_name(column)} AS VARCHAR) FROM {quoted_name(view)} "
            f"WHERE {quoted_name(column)} IS NOT NULL AND TRY_CAST({value} AS {kind}) IS NULL LIMIT 1"
        ).fetchall()
    except (duckdb.Error, pa.ArrowException):
        return None
    return found[0] if found else None
