"""Sources that may be larger than memory: raw files as DuckDB views, log tables as queries over them.

An adapter names the files with the columns it needs and one query for each log table. Files are scanned, not loaded;
intermediate tables spill to the system's temporary directory, and what is accepted is written batch by batch.
"""

import csv
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from crops_jax.errors import InputError
from crops_jax.text import normalise_query
from data.sources.acceptance import drop_refused, refusals
from data.sources.raw import Conversion
from data.tables import SCHEMAS, connect_duckdb, write_table
from data.tables.files import sql_text
from data.tables.schemas import KINDS

Layout = Literal["csv", "tsv", "jsonl", "parquet", "feather"]

_BATCH = 1 << 18
_LINE_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """Files of one layout, read as one view of `columns` and `optional` in their SQL types.

    files: patterns below the source's folder; the first that matches anything is taken, with all its matches by name.
    columns: by name in the view. `a|b` is the first of a and b that the files have; the view calls it a.
    optional: the same for columns, typed nulls where the files lack them; required: False for files that may lack.
    layout: "csv" has a header and double quotes, between commas or tabs; "tsv" has neither header nor quotes, and
      `columns` are its fields in order; "jsonl" is one object a line; csv, tsv and jsonl may be gzipped.
    """

    files: tuple[str, ...]
    layout: Layout
    columns: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """A source's raw files by view name, and by log table the query that makes it from them.

    `normalise_query(text)` can be called in the queries; times are in UTC.
    counts: by (table, reason) a query for the number of rows that the adapter itself leaves out.
    """

    folder: Path
    raw: Mapping[str, RawTable]
    queries: Mapping[str, str]
    counts: Mapping[tuple[str, str], str] = field(default_factory=dict)


class Accepted(Protocol):
    """Log tables of which what would be refused was dropped: rows of each, what was dropped by table and reason."""

    rows: dict[str, int]
    dropped: dict[str, dict[str, int]]

    def write(self, directory: Path) -> None:
        """Writes NAME.parquet for every table."""
        ...


@dataclass(kw_only=True)
class _AcceptedInMemory:
    tables: dict[str, pa.Table]
    rows: dict[str, int]
    dropped: dict[str, dict[str, int]]

    def write(self, directory: Path) -> None:
        for name, table in self.tables.items():
            write_table(directory, name, table)


@dataclass(kw_only=True)
class _AcceptedInDuckDB:
    """Usable as long as its connection is open."""

    connection: duckdb.DuckDBPyConnection
    rows: dict[str, int]
    dropped: dict[str, dict[str, int]]

    def write(self, directory: Path) -> None:
        """Writes NAME.parquet for every table: the same bytes for the same rows, a batch in memory at a time."""
        for name in self.rows:
            self._write_table(directory, name)

    def _write_table(self, directory: Path, name: str) -> None:
        columns = SCHEMAS[name].columns
        filled = self.connection.execute(
            f"SELECT {', '.join(f'count({_quoted(column.name)})' for column in columns)} FROM {_quoted(name)}"
        ).fetchall()[0]
        # Optional columns of nulls alone stay away, as in data.tables.write_table.
        kept = [column for column, number in zip(columns, filled, strict=True) if number or column.required]
        schema = pa.schema([pa.field(column.name, column.arrow_type) for column in kept])
        selected = ", ".join(_quoted(column.name) for column in kept)
        batches = self.connection.sql(f"SELECT {selected} FROM {_quoted(name)} ORDER BY row").to_arrow_reader(_BATCH)
        with pq.ParquetWriter(directory / f"{name}.parquet", schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_table(pa.Table.from_batches([batch]).cast(schema), row_group_size=_BATCH)


@contextmanager
def accept(source: Conversion | Streamed) -> Iterator[Accepted]:
    """Makes a source's log tables and drops, and counts, what these would refuse.

    Tables of which nothing is left are left out where judgements remain: these are enough by themselves.

    Raises:
      InputError: a file or column is missing, or a file does not hold what the source publishes.
    """
    if isinstance(source, Conversion):
        tables, dropped = drop_refused(source.tables)
        for name, counts in source.dropped.items():
            dropped[name] = {**counts, **dropped.get(name, {})}
        rows = {name: table.num_rows for name, table in tables.items()}
        yield _AcceptedInMemory(tables=tables, rows=rows, dropped=dropped)
        return
    with connect_duckdb() as connection:
        connection.create_function("normalise_query", normalise_query, ["VARCHAR"], "VARCHAR")
        try:
            for name, table in source.raw.items():
                _add_raw_view(connection, source.folder, name, table)
            dropped = {}
            for (name, reason), query in source.counts.items():
                if number := connection.execute(query).fetchall()[0][0]:
                    dropped.setdefault(name, {})[reason] = number
            for name in (name for name in SCHEMAS if name in source.queries):
                _load(connection, name, source.queries[name])
                for reason, number in _drop(connection, name).items():
                    dropped.setdefault(name, {})[reason] = number
        except (duckdb.Error, pa.ArrowException) as error:
            raise InputError(_explained(connection, source, error)) from error
        rows = {
            name: connection.execute(f"SELECT count(*) FROM {_quoted(name)}").fetchall()[0][0]
            for name in SCHEMAS
            if name in source.queries
        }
        if rows.get("judgements"):
            rows = {name: number for name, number in rows.items() if number}
        elif rows.get("judgements") == 0 and rows.get("candidates"):
            del rows["judgements"]
        if not rows.get("feed_views", 1):
            del rows["feed_views"]
        yield _AcceptedInDuckDB(connection=connection, rows=rows, dropped=dropped)


def raw_columns(files: list[Path], table: RawTable) -> list[str]:
    """Names of the columns that the first of the files has. Raises InputError where it cannot be read."""
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
        message = " ".join(str(error).split())[:200]
        raise InputError(f"{file} is not {table.layout} or is cut off ({message}); get it again") from error


def raw_files(folder: Path, table: RawTable) -> list[Path]:
    """The files of a raw table; none where they may lack. Raises InputError where they must not."""
    if not folder.is_dir():
        raise InputError(f"--input {folder}: no such directory; give the folder of the source's files")
    for pattern in table.files:
        if found := sorted(file for file in folder.glob(pattern) if file.is_file()):
            return found
    if not table.required:
        return []
    present = ", ".join(sorted(file.name for file in folder.iterdir())[:20]) or "nothing"
    raise InputError(f"{folder}: no file {' or '.join(table.files)}, it holds {present}; check --input and --source")


def _add_raw_view(connection: duckdb.DuckDBPyConnection, folder: Path, name: str, table: RawTable) -> None:
    """The view NAME in the columns' types and, for messages, "as read NAME" as the files hold them."""
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
        f"CAST({_quoted(found) if found else 'NULL'} AS {types[column]}) AS {_quoted(column.split('|')[0])}"
        for column, found in places.items()
    ]
    if not files:
        connection.execute(f"CREATE VIEW {_quoted(name)} AS SELECT {', '.join(casts)} WHERE false")
        return
    connection.execute(f"CREATE VIEW {_quoted('as read ' + name)} AS SELECT * FROM {read}")
    connection.execute(f"CREATE VIEW {_quoted(name)} AS SELECT {', '.join(casts)} FROM {_quoted('as read ' + name)}")


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
            return _quoted(f"files {name}")
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


def _load(connection: duckdb.DuckDBPyConnection, name: str, query: str) -> None:
    schema = SCHEMAS[name]
    given = {column[0] for column in connection.sql(f"SELECT * FROM ({query}) LIMIT 0").description}
    columns = []
    for column in schema.columns:
        value = _quoted(column.name) if column.name in given else "NULL"
        if column.kind == "query" and schema.normalised_query:
            value = f"normalise_query({value})"
        columns.append(f"CAST({value} AS {KINDS[column.kind].sql}) AS {_quoted(column.name)}")
    connection.execute(
        f"CREATE TABLE {_quoted(name)} AS SELECT {', '.join(columns)}, row_number() OVER () AS row FROM ({query})"
    )


def _drop(connection: duckdb.DuckDBPyConnection, name: str) -> dict[str, int]:
    counts = {}
    for reason, refused in refusals(name, [column.name for column in SCHEMAS[name].columns]):
        if number := connection.execute(f"DELETE FROM {_quoted(name)} WHERE {refused}").fetchall()[0][0]:
            counts[reason] = number
    return counts


def _explained(connection: duckdb.DuckDBPyConnection, source: Streamed, error: Exception) -> str:
    """What is wrong, with file and column: the first value that is not of its column's type, else what DuckDB says."""
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
                    f"SELECT CAST({_quoted(found)} AS VARCHAR) FROM {_quoted('as read ' + name)} "
                    f"WHERE {_quoted(found)} IS NOT NULL AND TRY_CAST({_quoted(found)} AS {kind}) IS NULL LIMIT 1"
                ).fetchall()
            except duckdb.Error:
                continue
            if wrong:
                return f"{files[0]}: column {found} holds {wrong[0][0]!r:.80}, which is no {kind}; get the file again"
    # DuckDB's message ends with advice on its own options, and names a CSV file below that.
    file = re.search(r"^\s*file\s*=\s*(.+)$", str(error), re.MULTILINE)
    message = " ".join(str(error).split("Possible fixes")[0].split())[:400]
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


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
