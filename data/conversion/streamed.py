"""Sources that can be larger than memory: raw files are DuckDB views, and log tables are queries over them.

An adapter names the files, the columns it needs, and one query for each log table. Files are scanned, not loaded.
Intermediate tables spill to the system's temporary directory, and accepted rows are written batch by batch.
"""

import csv
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from crops_jax.errors import InputError, one_line
from data.tables.files import sql_text

Layout = Literal["csv", "tsv", "jsonl", "parquet", "feather"]

ROWS_AT_ONCE = 1 << 18
_LINE_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """Files of one layout, which are read as one view with the columns `columns` and `optional` in their SQL types.

    files: patterns below the source's folder. The first pattern with a match is used, with all its matches by name.
    columns: name in the view -> SQL type. The name `a|b` reads the first of a and b that the files have, as column a.
    optional: the same for columns that the files can lack; the view then has typed nulls.
    required: False if the files themselves can be missing.
    layout: "csv" has a header and double quotes, and commas or tabs between values; "tsv" has neither header nor
      quotes, and `columns` are its fields in order; "jsonl" has one object on each line. csv, tsv and jsonl can be
      gzipped.
    """

    files: tuple[str, ...]
    layout: Layout
    columns: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """The raw files of a source by view name, and the query that makes each log table from them.

    The queries can call `normalise_query(text)`; times are in UTC.
    counts: (table, reason) -> a query for the number of rows that the adapter itself leaves out.
    """

    folder: Path
    raw: Mapping[str, RawTable]
    queries: Mapping[str, str]
    counts: Mapping[tuple[str, str], str] = field(default_factory=dict)


def raw_columns(files: list[Path], table: RawTable) -> list[str]:
    """Returns the column names of the first of the files. Raises InputError if it cannot be read."""
    file = files[0]
    try:
        match table.layout:
            case "parquet":
                return pq.read_schema(file).names
            case "feather":
                return pyarrow.dataset.dataset(file, format="feather").schema.names
            case "tsv":
                return [name.split("|")[0] for name in table.columns]
            case "csv":
                with _text_lines(file) as lines:
                    return next(csv.reader([next(lines)], delimiter=_delimiter(file)))
            case "jsonl":
                with _text_lines(file) as lines:
                    first = json.loads(next(line for line in lines if line.strip()))
                if not isinstance(first, dict):
                    raise ValueError(f"line 1 is {type(first).__name__} instead of an object")
                return list(first)
    except StopIteration as error:
        raise InputError(f"{file} is empty; get it again") from error
    except (pa.ArrowException, OSError, EOFError, ValueError, csv.Error) as error:
        raise InputError(f"{file} is not {table.layout} or is cut off ({one_line(error)}); get it again") from error


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


def add_raw_view(connection: duckdb.DuckDBPyConnection, folder: Path, name: str, table: RawTable) -> None:
    """Makes the view NAME with typed columns and, for messages, the view "as read NAME" with the files' own values."""
    files = raw_files(folder, table)
    present = raw_columns(files, table) if files else []
    places = {}
    for column in (*table.columns, *table.optional):
        alternatives = column.split("|")
        found = next((other for other in alternatives if other in present), None)
        if found is None and files and column in table.columns:
            raise InputError(
                f"{files[0]}: column {' or '.join(alternatives)} is missing, it has {', '.join(present)}; "
                "get the file again"
            )
        places[column] = found
    types = {**table.columns, **table.optional}
    read = _reader(connection, name, table, files, {found: types[column] for column, found in places.items() if found})
    casts = [
        f"CAST({quoted(found) if found else 'NULL'} AS {types[column]}) AS {quoted(column.split('|')[0])}"
        for column, found in places.items()
    ]
    if not files:
        connection.execute(f"CREATE VIEW {quoted(name)} AS SELECT {', '.join(casts)} WHERE false")
        return
    connection.execute(f"CREATE VIEW {quoted('as read ' + name)} AS SELECT * FROM {read}")
    connection.execute(f"CREATE VIEW {quoted(name)} AS SELECT {', '.join(casts)} FROM {quoted('as read ' + name)}")


def _reader(
    connection: duckdb.DuckDBPyConnection, name: str, table: RawTable, files: list[Path], types: dict[str, str]
) -> str:
    paths = "[" + ", ".join(f"'{sql_text(file)}'" for file in files) + "]"
    match table.layout:
        case "parquet":
            return f"read_parquet({paths}, union_by_name = true, hive_partitioning = false)"
        case "feather":
            if files:
                connection.register(f"files {name}", pyarrow.dataset.dataset(files, format="feather"))
            return quoted(f"files {name}")
        case "csv":
            delimiter = _delimiter(files[0]) if files else ","
            return (
                f"read_csv({paths}, header = true, delim = '{delimiter}', quote = '\"', escape = '\"', "
                f"all_varchar = true, union_by_name = true, max_line_size = {_LINE_BYTES})"
            )
        case "tsv":
            columns = ", ".join(f"{_text(column)}: 'VARCHAR'" for column in types)
            return (
                f"read_csv({paths}, header = false, auto_detect = false, delim = '\t', quote = '', escape = '', "
                f"columns = {{{columns}}}, max_line_size = {_LINE_BYTES})"
            )
        case "jsonl":
            columns = ", ".join(f"{_text(column)}: {_text(kind)}" for column, kind in types.items())
            return (
                f"read_json({paths}, format = 'newline_delimited', columns = {{{columns}}}, "
                f"maximum_object_size = {_LINE_BYTES})"
            )


def reading_error(connection: duckdb.DuckDBPyConnection, source: Streamed, error: Exception) -> str:
    """Returns a message with file and column: the first value that has not its column's type, else DuckDB's message."""
    for name, table in source.raw.items():
        files = raw_files(source.folder, table)
        if not files or table.layout == "jsonl":
            continue
        present = raw_columns(files, table)
        for column, kind in {**table.columns, **table.optional}.items():
            found = next((other for other in column.split("|") if other in present), None)
            if found is None or kind == "VARCHAR":
                continue
            try:
                wrong = connection.execute(
                    f"SELECT CAST({quoted(found)} AS VARCHAR) FROM {quoted('as read ' + name)} "
                    f"WHERE {quoted(found)} IS NOT NULL AND TRY_CAST({quoted(found)} AS {kind}) IS NULL LIMIT 1"
                ).fetchall()
            except duckdb.Error:
                continue
            if wrong:
                return f"{files[0]}: column {found} holds {wrong[0][0]!r:.80}, which is no {kind}; get the file again"
    # DuckDB's message ends with advice about its own options, followed by the name of a CSV file.
    file = re.search(r"^\s*file\s*=\s*(.+)$", str(error), re.MULTILINE)
    message = one_line(str(error).split("Possible fixes")[0], limit=400)
    place = file.group(1).strip() if file else source.folder
    return f"{place}: does not hold what the source publishes ({message}); get it again"


@contextmanager
def _text_lines(file: Path) -> Iterator[Iterator[str]]:
    with (
        gzip.open(file, "rt", encoding="utf-8-sig") if file.suffix == ".gz" else open(file, encoding="utf-8-sig")
    ) as lines:
        yield iter(lines)


def _delimiter(file: Path) -> str:
    with _text_lines(file) as lines:
        return "\t" if "\t" in next(lines, "") else ","


def quoted(name: str) -> str:
    """Returns the name of a table or column, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
