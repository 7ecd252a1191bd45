"""The log tables: opened with every check of product.md, read through Arrow or Ibis, written.

logs = open_logs("logs")
logs.names                            # frozenset({"documents", "searches", "candidates"})
logs.read("documents", ["doc_id"])    # a pyarrow.Table
connection = logs.connect()           # Ibis on DuckDB, one view a table
connection.table("searches")
"""

import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops_jax.errors import InputError
from data.table_checks import check_tables
from data.table_damage import named_read_errors
from data.table_files import TableFiles, add_view, find_tables
from data.table_schemas import SCHEMAS

if TYPE_CHECKING:
    import ibis.backends.duckdb

__all__ = ["SCHEMAS", "LogTables", "open_logs", "write_table"]


@dataclass(frozen=True, kw_only=True)
class LogTables:
    """Log tables that passed their checks."""

    path: Path
    tables: dict[str, TableFiles]
    rewrites: dict[str, pa.Table] = field(repr=False)
    """By table whose queries are kept normalised: (query, normalised) of those stored in another form."""

    @property
    def names(self) -> frozenset[str]:
        """The tables that are there."""
        return frozenset(self.tables)

    def files(self, name: str) -> list[Path]:
        """The Parquet files of a table, in the order in which their rows are read."""
        return list(self.tables[name].files)

    def num_rows(self, name: str) -> int:
        return self.tables[name].rows

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
            add_view(connection, self.tables[name])
            table = connection.sql(f"SELECT {selected} FROM {name}").to_arrow_table().cast(schema)
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

        settings = _settings() | ({"memory_limit": memory_limit} if memory_limit is not None else {})
        try:
            ibis_connection = ibis.duckdb.connect(**settings)
        except (duckdb.ParserException, duckdb.InvalidInputException) as error:
            raise InputError(f"--memory-limit {memory_limit!r} is no size ({error}); write 4GB or 500MB") from error
        connection = ibis_connection.con
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        for name in sorted(self.tables):
            add_view(connection, self.tables[name], rewrites=self.rewrites.get(name))
        return ibis_connection


def open_logs(path: Path | str) -> LogTables:
    """Opens the log tables of a directory: TABLE.parquet or a folder TABLE of Parquet files for each.

    Every check is done here: columns and types, nulls, keys, stages, times, positions, grades, ids that no other
    table knows, empty or missing required tables, and that every value can be read. Unknown columns and other files
    are left alone. Naive timestamps are taken as UTC.

    Raises:
      InputError: naming table, file, column, row (from 0, within the file), what was found and what to do.
    """
    path = Path(path)
    tables = find_tables(path)
    with connect_duckdb() as connection:
        rewrites = check_tables(connection, path, tables)
    return LogTables(path=path, tables=tables, rewrites=rewrites)


def write_table(directory: Path | str, name: str, table: pa.Table) -> Path:
    """Writes DIRECTORY/NAME.parquet: schema columns in schema order and type, the same bytes for the same rows.

    Optional columns of nulls alone are left out, so that what a source lacks stays absent.

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
    pq.write_table(written, file, compression="zstd", row_group_size=1 << 18)
    return file


def _rewritten(table: pa.Table, rewrites: pa.Table) -> pa.Table:
    stored = table.column("query")
    replaced = rewrites.column("normalised").take(pc.index_in(stored, value_set=rewrites.column("query")))
    place = table.schema.get_field_index("query")
    return table.set_column(place, table.schema.field(place), pc.coalesce(replaced, stored))


def connect_duckdb() -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory: time zone UTC, no progress bars, spilling into the system's temporary directory."""
    connection = duckdb.connect(config=_settings())
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    return connection


def _settings() -> dict[str, str]:
    # By default a database in memory spills into a folder of the working directory; DuckDB makes and removes this one.
    return {"temp_directory": f"{tempfile.gettempdir()}/crops_jax-duckdb-{secrets.token_hex(8)}"}
