"""The log tables. `open_logs` checks and opens them, LogTables reads them by Arrow or Ibis, `write_table` writes them.

logs = open_logs("logs")
logs.names                            # frozenset({"documents", "searches", "candidates"})
logs.read("documents", ["doc_id"])    # a pyarrow.Table
connection = logs.connect()           # Ibis on DuckDB, with one view for each table
connection.table("searches")

logs = open_logs("logs", on_bad_rows="quarantine", quarantine="labels.quarantine")
logs.quarantined                      # {"candidates": {"stage: unknown stage value": 3}}
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops_jax.artifacts import replaced_file
from crops_jax.errors import InputError, InputErrors
from crops_jax.program.progress import say
from data.tables.checks import check_tables
from data.tables.days import DaySpan
from data.tables.duckdb_session import connect_duckdb, duckdb_settings, duckdb_size
from data.tables.files import TableFiles, add_view, named_read_errors
from data.tables.footers import find_tables
from data.tables.quarantine import OnBadRows, SetAside, set_aside, write_quarantine
from data.tables.schemas import SCHEMAS

if TYPE_CHECKING:
    import ibis.backends.duckdb

_BATCH_ROWS = 1 << 18


@dataclass(frozen=True, kw_only=True)
class LogTables:
    """Log tables that passed their checks."""

    path: Path
    tables: dict[str, TableFiles]
    rewrites: dict[str, pa.Table] = field(repr=False)
    """table name -> (query, normalised) for its queries that are stored in another form than the normalised one."""
    quarantined: dict[str, dict[str, int]] = field(default_factory=dict)
    """The number of rows that were set aside, by table and reason."""
    quarantine: Path | None = None
    """The directory with these rows; None if no row was set aside or no directory was passed."""

    @property
    def outcome(self) -> dict[str, Any]:
        """The fields for the outcome line and the manifest of a program that reads these tables."""
        outcome: dict[str, Any] = {}
        if self.quarantined:
            outcome = {"quarantined": self.quarantined, "quarantine": self.quarantine and str(self.quarantine)}
        read = {name: said for name, table in self.tables.items() if (said := table.read_as)}
        return outcome | ({"read_as": read} if read else {})

    @property
    def names(self) -> frozenset[str]:
        """The names of the tables that are present."""
        return frozenset(self.tables)

    def files(self, name: str) -> list[Path]:
        """Returns the Parquet files of a table in the order of reading. They also contain rows that were set aside."""
        return list(self.tables[name].files)

    def num_rows(self, name: str) -> int:
        """Returns the number of rows of a table without the rows that were set aside."""
        return self.tables[name].rows - sum(self.quarantined.get(name, {}).values())

    def read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Returns a table, with its rows in the order of its files and its columns in the schema's types.

        Optional columns that are missing are typed nulls. Times are timestamp[us, UTC]. The column `query` of
        judgements, knowledge_documents and the test tables is normalised.

        Args:
          name: the name of the table.
          columns: the columns; None: all columns of the schema.
        """
        schema = SCHEMAS[name].arrow
        if columns is not None:
            schema = pa.schema([schema.field(column) for column in columns])
        selected = ", ".join(f'"{column}"' for column in schema.names)
        with named_read_errors(self.tables[name]), connect_duckdb() as connection:
            order = _add_ordered_view(connection, self.tables[name])
            table = connection.sql(f"SELECT {selected} FROM {name} {order}").to_arrow_table().cast(schema)
        return _rewritten(table, self.rewrites[name]) if name in self.rewrites and "query" in schema.names else table

    def connect(self, *, memory_limit: str | None = None) -> "ibis.backends.duckdb.Backend":
        """Returns a new Ibis connection to DuckDB in memory, with one view for each table that is present.

        Every view has every schema column in the type in which `read` returns it. The session's time zone is UTC,
        progress bars are off, and data that does not fit in memory is spilled to the system's temporary directory.

        Args:
          memory_limit: the maximum memory of DuckDB, such as "4GB"; DuckDB's default is 80 % of the machine's memory.

        Raises:
          InputError: the memory limit is not a size.
        """
        import ibis

        limit = {"memory_limit": duckdb_size(memory_limit)} if memory_limit is not None else {}
        ibis_connection = ibis.duckdb.connect(**duckdb_settings(), **limit)
        connection = ibis_connection.con
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        for name in sorted(self.tables):
            add_view(connection, self.tables[name], rewrites=self.rewrites.get(name))
        return ibis_connection


def open_logs(
    path: Path | str,
    *,
    on_bad_rows: OnBadRows = "fail",
    quarantine: Path | str | None = None,
    days: DaySpan | None = None,
) -> LogTables:
    """Opens the log tables of a directory. Each table is the file TABLE.parquet or a folder TABLE of Parquet files.

    All checks of the tables run here. They concern columns and types, nulls, keys, stages, times, positions, grades,
    ids that are missing from the table they refer to, required tables that are empty or missing, and whether every
    value can be read. Unknown columns and other files are ignored. Naive timestamps are read as UTC.

    Args:
      path: the directory.
      on_bad_rows: "fail": rows that break rules raise InputError, which has all of these rules. "quarantine": all such
        rows are omitted from all reads, counted, and written to `quarantine`; see data.tables.quarantine.
      quarantine: a directory for the rows that are set aside, by convention data.tables.quarantine.beside(OUTPUT). It
        replaces the one of an earlier call, which is removed if no row is set aside. None: the rows are only counted.
      days: the days of the tables that are kept in folders day=YYYY-MM-DD; only the folders of these days are opened.

    Raises:
      InputError: a check fails. The message names the table, file, column, row (its index within the file, from 0),
        the value and the remedy, for every check that fails.
    """
    path = Path(path)
    tables, problems = find_tables(path, days=days)
    with connect_duckdb() as connection:
        if on_bad_rows == "fail":
            return LogTables(path=path, tables=tables, rewrites=check_tables(connection, path, tables, problems))
        if problems:
            raise InputErrors([problem for listed in problems.values() for problem in listed])
        rows = set_aside(connection, path, tables)
        if quarantine is not None:
            write_quarantine(connection, rows.counts, logs=path, path=Path(quarantine))
    _print_counts(rows, quarantine)
    return LogTables(
        path=path,
        tables=rows.tables,
        rewrites=rows.rewrites,
        quarantined=rows.counts,
        quarantine=Path(quarantine) if quarantine is not None and rows.counts else None,
    )


def _print_counts(rows: SetAside, quarantine: Path | str | None) -> None:
    for name, counts in rows.counts.items():
        reasons = ", ".join(f"{number} ({reason})" for reason, number in counts.items())
        written_to = f" and written to {quarantine}" if quarantine is not None else ""
        say(f"table {name}: {sum(counts.values())} rows were set aside{written_to}: {reasons}")


def copy_table(logs: LogTables, name: str, directory: Path) -> None:
    """Copies the files of a table unchanged, or, if rows were set aside, writes the rows that remain."""
    files = logs.files(name)
    if logs.tables[name].left_out is not None:
        _write_kept(logs.tables[name], directory / f"{name}.parquet")
    elif len(files) == 1:
        shutil.copyfile(files[0], directory / f"{name}.parquet")
    else:
        (directory / name).mkdir()
        for number, file in enumerate(files):
            shutil.copyfile(file, directory / name / f"{number:05d}.parquet")


def _write_kept(table: TableFiles, file: Path) -> None:
    """Writes the schema columns of the rows that were not set aside, with one batch in memory at a time."""
    schema = pa.schema([field for field in table.schema.arrow if field.name in table.stored])
    selected = ", ".join(f'"{column}"' for column in schema.names)
    with named_read_errors(table), connect_duckdb() as connection:
        order = _add_ordered_view(connection, table)
        batches = connection.sql(f"SELECT {selected} FROM {table.name} {order}").to_arrow_reader(_BATCH_ROWS)
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_table(pa.Table.from_batches([batch]).cast(schema), row_group_size=_BATCH_ROWS)


def _add_ordered_view(connection: duckdb.DuckDBPyConnection, table: TableFiles) -> str:
    """Adds the view of a table with its stored queries, and returns the clause that orders its rows as in the files."""
    add_view(connection, table, located=table.left_out is not None)
    return "" if table.left_out is None else "ORDER BY file, row"


def write_table(directory: Path | str, name: str, table: pa.Table) -> Path:
    """Writes DIRECTORY/NAME.parquet with the schema's columns, in their order and types. Equal rows make equal bytes.

    The file appears whole or not at all. Optional columns that have only nulls are omitted, so that columns that a
    source lacks stay absent.

    Returns:
      the path of the file.

    Raises:
      InputError: a required column is missing, or a column cannot be cast.
    """
    columns, fields = [], []
    for column in SCHEMAS[name].columns:
        if column.name not in table.column_names:
            if column.required:
                raise InputError(f"table {name}: column {column.name} is missing; add it")
            continue
        values = table.column(column.name)
        if not column.required and values.null_count == len(values):
            continue
        try:
            columns.append(values.cast(column.arrow_type).combine_chunks())
        except pa.ArrowInvalid as error:
            raise InputError(f"table {name}, column {column.name}: {error}") from error
        fields.append(pa.field(column.name, column.arrow_type))
    file = Path(directory) / f"{name}.parquet"
    written = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    with replaced_file(file) as temporary:
        pq.write_table(written, temporary, compression="zstd", row_group_size=1 << 18)
    return file


def _rewritten(table: pa.Table, rewrites: pa.Table) -> pa.Table:
    stored = table.column("query")
    replaced = rewrites.column("normalised").take(pc.index_in(stored, value_set=rewrites.column("query")))
    position = table.schema.get_field_index("query")
    return table.set_column(position, table.schema.field(position), pc.coalesce(replaced, stored))
