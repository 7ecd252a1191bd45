"""Drops and counts the rows that break a rule of the log tables, in tables in memory and in streamed sources."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from crops_jax.errors import InputError
from crops_jax.text import normalise_query
from data.conversion.raw import Conversion
from data.conversion.streamed import ROWS_AT_ONCE, Streamed, add_raw_view, quoted, reading_error
from data.tables import SCHEMAS, connect_duckdb, write_table
from data.tables.rules import REFERENCES, value_rules
from data.tables.schemas import KINDS


def drop_refused(tables: dict[str, pa.Table]) -> tuple[dict[str, pa.Table], dict[str, dict[str, int]]]:
    """Returns log tables that `open_logs` accepts, and the number of dropped rows by table and reason.

    Of several rows with one key, the first is kept. A row whose reference names a missing or dropped row is dropped.
    Queries are normalised in the tables that require it.
    """
    kept, dropped = {}, {}
    with connect_duckdb() as connection:
        connection.create_function("normalise_query", normalise_query, ["VARCHAR"], "VARCHAR")
        for name in (name for name in SCHEMAS if name in tables):
            _load_table(connection, name, tables[name])
            counts = {}
            for reason, refused in refusals(name, tables[name].column_names):
                number = connection.execute(f'DELETE FROM "{name}" WHERE {refused}').fetchall()[0][0]
                if number:
                    counts[reason] = number
            if counts:
                dropped[name] = counts
            columns = ", ".join(f'"{column.name}"' for column in SCHEMAS[name].columns)
            kept[name] = connection.sql(f'SELECT {columns} FROM "{name}" ORDER BY row').to_arrow_table()
    return kept, dropped


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


def refusals(name: str, present: list[str]) -> Iterator[tuple[str, str]]:
    """Yields (reason, SQL condition of the rows to drop) in the order in which they apply."""
    for rule in value_rules(SCHEMAS[name], present):
        yield f"{rule.column}: {rule.problem.format(found='value')}", rule.broken.replace('"stored ', '"')
    for table, column, owner in REFERENCES:
        if table == name:
            yield f"{column} not in {owner}", f'{column} NOT IN (SELECT {column} FROM "{owner}")'
    key = ", ".join(SCHEMAS[name].key)
    if key:
        yield f"repeated {key}", f'row NOT IN (SELECT min(row) FROM "{name}" GROUP BY {key})'


class Accepted(Protocol):
    """Accepted log tables: the number of rows of each, and the number of dropped rows by table and reason."""

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
    """Accepted log tables in DuckDB. They can be used as long as the connection is open."""

    connection: duckdb.DuckDBPyConnection
    rows: dict[str, int]
    dropped: dict[str, dict[str, int]]

    def write(self, directory: Path) -> None:
        """Writes NAME.parquet for every table: the same bytes for the same rows, with one batch in memory at a time."""
        for name in self.rows:
            self._write_table(directory, name)

    def _write_table(self, directory: Path, name: str) -> None:
        columns = SCHEMAS[name].columns
        filled = self.connection.execute(
            f"SELECT {', '.join(f'count({quoted(column.name)})' for column in columns)} FROM {quoted(name)}"
        ).fetchall()[0]
        # Optional columns that hold only nulls are left out, as in data.tables.write_table.
        kept = [column for column, number in zip(columns, filled, strict=True) if number or column.required]
        schema = pa.schema([pa.field(column.name, column.arrow_type) for column in kept])
        selected = ", ".join(quoted(column.name) for column in kept)
        batches = self.connection.sql(f"SELECT {selected} FROM {quoted(name)} ORDER BY row").to_arrow_reader(
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
                add_raw_view(connection, source.folder, name, table)
            dropped = {}
            for (name, reason), query in source.counts.items():
                if number := connection.execute(query).fetchall()[0][0]:
                    dropped.setdefault(name, {})[reason] = number
            for name in (name for name in SCHEMAS if name in source.queries):
                _load_query(connection, name, source.queries[name])
                for reason, number in _drop(connection, name).items():
                    dropped.setdefault(name, {})[reason] = number
        except (duckdb.Error, pa.ArrowException) as error:
            raise InputError(reading_error(connection, source, error)) from error
        rows = {
            name: connection.execute(f"SELECT count(*) FROM {quoted(name)}").fetchall()[0][0]
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


def _load_query(connection: duckdb.DuckDBPyConnection, name: str, query: str) -> None:
    schema = SCHEMAS[name]
    given = {column[0] for column in connection.sql(f"SELECT * FROM ({query}) LIMIT 0").description}
    columns = []
    for column in schema.columns:
        value = quoted(column.name) if column.name in given else "NULL"
        if column.kind == "query" and schema.normalised_query:
            value = f"normalise_query({value})"
        columns.append(f"CAST({value} AS {KINDS[column.kind].sql}) AS {quoted(column.name)}")
    connection.execute(
        f"CREATE TABLE {quoted(name)} AS SELECT {', '.join(columns)}, row_number() OVER () AS row FROM ({query})"
    )


def _drop(connection: duckdb.DuckDBPyConnection, name: str) -> dict[str, int]:
    counts = {}
    for reason, refused in refusals(name, [column.name for column in SCHEMAS[name].columns]):
        if number := connection.execute(f"DELETE FROM {quoted(name)} WHERE {refused}").fetchall()[0][0]:
            counts[reason] = number
    return counts
