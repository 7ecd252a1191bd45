"""Drops and counts the rows that break a rule of the log tables, in tables in memory and in streamed sources."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax.errors import InputError
from crops_jax.text import normalise_query
from data.backends.sql import quoted_name
from data.conversion.raw import Conversion
from data.conversion.streamed import ROWS_AT_ONCE, Streamed, add_raw_view, reading_error
from data.conversion.values import NOUNS
from data.tables import SCHEMAS, connect_duckdb, write_table
from data.tables.checks import required_tables
from data.tables.rules import REFERENCES, value_rules
from data.tables.schemas import KINDS

_Counts: TypeAlias = dict[str, dict[str, int]]
_Examples: TypeAlias = dict[str, dict[str, str]]


def drop_refused(tables: dict[str, pa.Table]) -> tuple[dict[str, pa.Table], dict[str, dict[str, int]]]:
    """Returns log tables that `open_logs` accepts, and the number of dropped rows by table and reason.

    Of several rows with one key, the first is kept. A row whose reference names a missing or dropped row is dropped.
    Queries are normalised in the tables that require it.
    """
    kept, dropped, _ = _drop_refused(tables)
    return kept, dropped


def _drop_refused(tables: dict[str, pa.Table]) -> tuple[dict[str, pa.Table], _Counts, _Examples]:
    kept: dict[str, pa.Table] = {}
    dropped: _Counts = {}
    examples: _Examples = {}
    with connect_duckdb() as connection:
        connection.create_function("normalise_query", normalise_query, ["VARCHAR"], "VARCHAR")
        for name in (name for name in SCHEMAS if name in tables):
            _load_table(connection, name, tables[name])
            _drop(connection, name, tables[name].column_names, dropped, examples)
            columns = ", ".join(f'"{column.name}"' for column in SCHEMAS[name].columns)
            kept[name] = connection.sql(f'SELECT {columns} FROM "{name}" ORDER BY row').to_arrow_table()
    return kept, dropped, examples


def _load_table(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    schema = SCHEMAS[name]
    columns = []
    for column in schema.columns:
        present = column.name in table.column_names
        values = table.column(column.name) if present else pa.nulls(table.num_rows)
        columns.append(values.cast(column.arrow_type))
    connection.register("arriving", pa.Table.from_arrays(columns, schema=schema.arrow))
    replaced = "REPLACE (normalise_query(query) AS query)" if schema.normalised_query else ""
    connection.execute(f'CREATE TABLE "{name}" AS SELECT * {replaced}, row_number() OVER () AS row FROM arriving')
    connection.unregister("arriving")


def refusals(name: str, present: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yields (reason, SQL condition of the rows to drop, SQL of the value to show) in the order in which they apply.

    Args:
      name: the log table.
      present: its columns, among them "unread COLUMN" where the table has it.
    """
    for column in SCHEMAS[name].columns:
        if (text := f"unread {column.name}") in present:
            yield (
                f"{column.name}: value is no {NOUNS[column.kind]}",
                f"{quoted_name(text)} IS NOT NULL",
                quoted_name(text),
            )
    for rule in value_rules(SCHEMAS[name], present):
        reason = f"{rule.column}: {rule.problem.format(found='value')}"
        yield reason, rule.broken.replace('"stored ', '"'), rule.found.replace('"stored ', '"')
    for table, column, owner in REFERENCES:
        if table == name:
            yield f"{column} not in {owner}", f'{column} NOT IN (SELECT {column} FROM "{owner}")', column
    if key := SCHEMAS[name].key:
        listed = ", ".join(key)
        repeated = f'row NOT IN (SELECT min(row) FROM "{name}" GROUP BY {listed})'
        yield f"repeated {listed}", repeated, f"concat_ws(', ', {listed})"


class Accepted(Protocol):
    """Accepted log tables: the rows of each, the dropped rows by table and reason with an example of each reason.

    left_empty: the number of values that cannot be read and that are left empty, by table and reason.
    """

    rows: dict[str, int]
    dropped: dict[str, dict[str, int]]
    examples: dict[str, dict[str, str]]
    left_empty: dict[str, dict[str, int]]

    def write(self, directory: Path) -> None:
        """Writes NAME.parquet for every table."""
        ...


@dataclass(kw_only=True)
class _AcceptedInMemory:
    tables: dict[str, pa.Table]
    rows: dict[str, int]
    dropped: dict[str, dict[str, int]]
    examples: dict[str, dict[str, str]]
    left_empty: dict[str, dict[str, int]]

    def write(self, directory: Path) -> None:
        for name, table in self.tables.items():
            write_table(directory, name, table)


@dataclass(kw_only=True)
class _AcceptedInDuckDB:
    """Accepted log tables in DuckDB. They can be used as long as the connection is open."""

    connection: duckdb.DuckDBPyConnection
    rows: dict[str, int]
    dropped: dict[str, dict[str, int]]
    examples: dict[str, dict[str, str]]
    left_empty: dict[str, dict[str, int]]

    def write(self, directory: Path) -> None:
        """Writes NAME.parquet for every table: the same bytes for the same rows, with one batch in memory at a time."""
        for name in self.rows:
            self._write_table(directory, name)

    def _write_table(self, directory: Path, name: str) -> None:
        columns = SCHEMAS[name].columns
        filled = self.connection.execute(
            f"SELECT {', '.join(f'count({quoted_name(column.name)})' for column in columns)} FROM {quoted_name(name)}"
        ).fetchall()[0]
        # Optional columns that hold only nulls are left out, as in data.tables.write_table.
        kept = [column for column, number in zip(columns, filled, strict=True) if number or column.required]
        schema = pa.schema([pa.field(column.name, column.arrow_type) for column in kept])
        selected = ", ".join(quoted_name(column.name) for column in kept)
        batches = self.connection.sql(f"SELECT {selected} FROM {quoted_name(name)} ORDER BY row").to_arrow_reader(
            ROWS_AT_ONCE
        )
        with pq.ParquetWriter(directory / f"{name}.parquet", schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_table(pa.Table.from_batches([batch]).cast(schema), row_group_size=ROWS_AT_ONCE)


@contextmanager
def accept(source: Conversion | Streamed) -> Iterator[Accepted]:
    """Makes the log tables of a source; rows that break a rule are dropped and counted.

    If judgements remain, tables without rows are left out, because judgements and documents are sufficient.

    Raises:
      InputError: a file or column is missing, or a file does not hold what the source publishes.
    """
    if isinstance(source, Conversion):
        tables, dropped, examples = _drop_refused(source.tables)
        for name, counts in source.dropped.items():
            dropped[name] = {**counts, **dropped.get(name, {})}
        rows = {name: table.num_rows for name, table in tables.items()}
        left_empty = source.left_empty
        yield _AcceptedInMemory(tables=tables, rows=rows, dropped=dropped, examples=examples, left_empty=left_empty)
        return
    with connect_duckdb() as connection:
        connection.create_function("normalise_query", normalise_query, ["VARCHAR"], "VARCHAR")
        examples = {}
        try:
            dropped = _add_raw_views(connection, source)
            _add_counts(connection, source.counts, dropped)
            left_empty = {}
            _add_counts(connection, source.left_empty, left_empty)
            for name in (name for name in SCHEMAS if name in source.queries):
                given = _load_query(connection, name, source.queries[name])
                _check_read(connection, name, given)
                _drop(connection, name, given, dropped, examples)
        except (duckdb.Error, pa.ArrowException) as error:
            raise InputError(reading_error(connection, source, error)) from error
        rows = _rows(connection, source)
        yield _AcceptedInDuckDB(
            connection=connection, rows=rows, dropped=dropped, examples=examples, left_empty=left_empty
        )


def check_rows_remain(accepted: Accepted, folder: Path | str) -> None:
    """Raises InputError if a required table has no row left; the message has every reason with an example."""
    problems = []
    for name in required_tables(accepted.rows):
        if accepted.rows.get(name) == 0:
            examples = accepted.examples.get(name, {})
            reasons = ", ".join(
                f"{number} rows dropped ({reason}{f', such as {examples[reason]!r}' if reason in examples else ''})"
                for reason, number in accepted.dropped.get(name, {}).items()
            )
            problems.append(f"table {name}: --input {folder} has no rows for it{': ' if reasons else ''}{reasons}")
    if problems:
        raise InputError(f"{'; '.join(problems)}; correct the files, or the way they are mapped")


def _rows(connection: duckdb.DuckDBPyConnection, source: Streamed) -> dict[str, int]:
    """Returns the number of rows by table, without the tables that are left out."""
    rows = {
        name: connection.execute(f"SELECT count(*) FROM {quoted_name(name)}").fetchall()[0][0]
        for name in SCHEMAS
        if name in source.queries
    }
    if rows.get("judgements"):
        rows = {name: number for name, number in rows.items() if number or name == "documents"}
    elif rows.get("judgements") == 0 and rows.get("candidates"):
        del rows["judgements"]
    if not rows.get("feed_views", 1):
        del rows["feed_views"]
    return rows


def _add_raw_views(connection: duckdb.DuckDBPyConnection, source: Streamed) -> _Counts:
    """Adds the views of the raw files, and returns the lines that are left out by the table that they feed."""
    dropped: _Counts = {}
    for name, table in source.raw.items():
        for reason, number in add_raw_view(connection, source.folder, name, table).items():
            dropped.setdefault(table.feeds, {})[reason] = number
    return dropped


def _add_counts(connection: duckdb.DuckDBPyConnection, queries: Mapping[tuple[str, str], str], counts: _Counts) -> None:
    for (name, reason), query in queries.items():
        if number := connection.execute(query).fetchall()[0][0]:
            counts.setdefault(name, {})[reason] = number


def _load_query(connection: duckdb.DuckDBPyConnection, name: str, query: str) -> list[str]:
    """Makes the table NAME, and returns its columns: those of its schema, and the query's "unread COLUMN"."""
    schema = SCHEMAS[name]
    given = [column[0] for column in connection.sql(f"SELECT * FROM ({query}) LIMIT 0").description]
    columns = []
    for column in schema.columns:
        value = quoted_name(column.name) if column.name in given else "NULL"
        if column.kind == "query" and schema.normalised_query:
            value = f"normalise_query({value})"
        columns.append(f"CAST({value} AS {KINDS[column.kind].sql}) AS {quoted_name(column.name)}")
    unread = [column for column in given if column.startswith("unread ")]
    columns += map(quoted_name, unread)
    connection.execute(
        f"CREATE TABLE {quoted_name(name)} AS SELECT {', '.join(columns)}, row_number() OVER () AS row FROM ({query})"
    )
    return [column.name for column in schema.columns] + unread


def _check_read(connection: duckdb.DuckDBPyConnection, name: str, present: Sequence[str]) -> None:
    """Raises InputError if a column has values in the input, but none of them can be read."""
    problems = []
    for column in SCHEMAS[name].columns:
        if (text := f"unread {column.name}") in present:
            unread, read, example = connection.execute(
                f"SELECT count({quoted_name(text)}), count({quoted_name(column.name)}), "
                f"arg_min({quoted_name(text)}, row) FROM {quoted_name(name)}"
            ).fetchall()[0]
            if unread and not read:
                problems.append(
                    f"table {name}, column {column.name}: none of {unread} values can be read; the first is "
                    f"{example!r:.80}, which is no {NOUNS[column.kind]}"
                )
    if problems:
        raise InputError(f"{'; '.join(problems)}; correct the files, or the way they are mapped")


def _drop(
    connection: duckdb.DuckDBPyConnection, name: str, present: Sequence[str], dropped: _Counts, examples: _Examples
) -> None:
    """Deletes the rows of the table NAME that break a rule; adds to `dropped` and `examples` by reason."""
    for reason, refused, found in refusals(name, present):
        number, example = connection.execute(
            f"SELECT count(*), arg_min(CAST({found} AS VARCHAR), row) FROM {quoted_name(name)} WHERE {refused}"
        ).fetchall()[0]
        if number:
            connection.execute(f"DELETE FROM {quoted_name(name)} WHERE {refused}")
            dropped.setdefault(name, {})[reason] = dropped.get(name, {}).get(reason, 0) + number
            if example is not None:
                examples.setdefault(name, {})[reason] = example[:80]
