"""The log tables: opened with all checks, read through Arrow or Ibis, written.

logs = open_logs("logs")
logs.names                            # frozenset({"documents", "searches", "candidates"})
logs.read("documents", ["doc_id"])    # a pyarrow.Table
connection = logs.connect()           # Ibis on DuckDB, one view a table
connection.table("searches")

logs = open_logs("logs", on_bad_rows="quarantine", quarantine="labels.quarantine")
logs.quarantined                      # {"candidates": {"stage: unknown stage value": 3}}
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops_jax.artifacts import replaced_file
from crops_jax.errors import InputError
from data.tables.checks import check_tables
from data.tables.days import DaySpan
from data.tables.duckdb_session import connect_duckdb, duckdb_settings, duckdb_size
from data.tables.files import TableFiles, add_view, find_tables, named_read_errors
from data.tables.quarantine import OnBadRows, SetAside, set_aside, write_quarantine
from data.tables.schemas import SCHEMAS

if TYPE_CHECKING:
    import ibis.backends.duckdb

_BATCH = 1 << 18


@dataclass(frozen=True, kw_only=True)
class LogTables:
    """Log tables that passed their checks."""

    path: Path
    tables: dict[str, TableFiles]
    rewrites: dict[str, pa.Table] = field(repr=False)
    """For each table whose queries are kept normalised, the (query, normalised) of those stored in another form."""
    quarantined: dict[str, dict[str, int]] = field(default_factory=dict)
    """The number of rows that were set aside, by table and reason."""
    quarantine: Path | None = None
    """The directory to which these rows were written; None if there were none, or if no directory was given."""

    @property
    def outcome(self) -> dict[str, Any]:
        """The fields for the outcome line and the manifest of a program that reads these tables."""
        if not self.quarantined:
            return {}
        return {"quarantined": self.quarantined, "quarantine": self.quarantine and str(self.quarantine)}

    @property
    def names(self) -> frozenset[str]:
        """The tables that are there."""
        return frozenset(self.tables)

    def files(self, name: str) -> list[Path]:
        """The Parquet files of a table, in the order in which their rows are read; set-aside rows are in them too."""
        return list(self.tables[name].files)

    def num_rows(self, name: str) -> int:
        """Rows of a table, without those that were set aside."""
        return self.tables[name].rows - sum(self.quarantined.get(name, {}).values())

    def read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A table in memory, in the order of its files, in the schema's types.

        Optional columns that are not there are typed nulls; times are timestamp[us, UTC]; `query` of judgements,
        knowledge_documents and test tables is normalised.
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
        """A new Ibis connection to an in-memory DuckDB with one view a table that is there.

        Every view has every schema column in its type, as `read` gives them. The session's time zone is UTC; progress
        bars are off; what does not fit in memory is spilled to the system's temporary directory.

        Args:
          memory_limit: such as "4GB"; DuckDB's default is 80 % of the machine's memory.

        Raises:
          InputError: a memory limit that is no size.
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
    """Opens the log tables of a directory: TABLE.parquet or a folder TABLE of Parquet files for each.

    Every check is done here: columns and types, nulls, keys, stages, times, positions, grades, ids that no other
    table knows, empty or missing required tables, and that every value can be read. Unknown columns and other files
    are left alone. Naive timestamps are taken as UTC.

    Args:
      path: the directory.
      on_bad_rows: "fail": the first row that breaks a rule is refused. "quarantine": all such rows are left out of
        everything that is read, counted, and written to `quarantine`; see data.tables.quarantine.
      quarantine: a directory for the rows that are set aside, data.tables.quarantine.beside(OUTPUT) by custom. What an
        earlier call wrote there is replaced, or removed where nothing is set aside. None: they are only counted.
      days: of tables that are kept in folders day=YYYY-MM-DD, only the folders of these days are opened.

    Raises:
      InputError: naming table, file, column, row (from 0, within the file), what was found and what to do.
    """
    path = Path(path)
    tables = find_tables(path, days=days)
    with connect_duckdb() as connection:
        if on_bad_rows == "fail":
            return LogTables(path=path, tables=tables, rewrites=check_tables(connection, path, tables))
        found = set_aside(connection, path, tables)
        if quarantine is not None:
            write_quarantine(connection, found.counts, logs=path, path=Path(quarantine))
    _say(found, quarantine)
    return LogTables(
        path=path,
        tables=found.tables,
        rewrites=found.rewrites,
        quarantined=found.counts,
        quarantine=Path(quarantine) if quarantine is not None and found.counts else None,
    )


def _say(found: SetAside, quarantine: Path | str | None) -> None:
    for name, counts in found.counts.items():
        reasons = ", ".join(f"{number} ({reason})" for reason, number in counts.items())
        where = f", which lie in {quarantine}" if quarantine is not None else ""
        print(f"table {name}: {sum(counts.values())} rows set aside{where}: {reasons}", file=sys.stderr)


def copy_table(logs: LogTables, name: str, directory: Path) -> None:
    """Copies a table of log tables: its files as they are, or, where rows were set aside, what is left of them."""
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
    """Writes the schema columns of the rows that were not set aside, some hundred thousand in memory at a time."""
    schema = pa.schema([field for field in table.schema.arrow if field.name in table.stored])
    selected = ", ".join(f'"{column}"' for column in schema.names)
    with named_read_errors(table), connect_duckdb() as connection:
        order = _add_ordered_view(connection, table)
        batches = connection.sql(f"SELECT {selected} FROM {table.name} {order}").to_arrow_reader(_BATCH)
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_table(pa.Table.from_batches([batch]).cast(schema), row_group_size=_BATCH)


def _add_ordered_view(connection: duckdb.DuckDBPyConnection, table: TableFiles) -> str:
    """Adds the view of a table, queries as stored, and returns what brings its rows into the order of the files."""
    add_view(connection, table, located=table.left_out is not None)
    return "" if table.left_out is None else "ORDER BY file, row"


def write_table(directory: Path | str, name: str, table: pa.Table) -> Path:
    """Writes DIRECTORY/NAME.parquet: schema columns in schema order and type, the same bytes for the same rows.

    The file appears whole or not at all. Optional columns of nulls alone are left out, so that what a source lacks
    stays absent.

    Raises:
      InputError: a required column is missing or cannot be cast.
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
    place = table.schema.get_field_index("query")
    return table.set_column(place, table.schema.field(place), pc.coalesce(replaced, stored))
