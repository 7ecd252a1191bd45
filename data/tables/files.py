"""The Parquet files of a log table as a DuckDB view, and the errors of reading them."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax.errors import InputError, one_line
from data.backends.sql import quoted_files, quoted_name, quoted_text
from data.tables.duckdb_session import named_lack_of_room
from data.tables.schemas import TableSchema
from data.tables.stored import FileRun, is_text, read_as, sql


@dataclass(frozen=True, kw_only=True)
class TableFiles:
    """The files of one table, and the types in which they store its columns."""

    name: str
    schema: TableSchema
    files: tuple[Path, ...]
    runs: tuple[FileRun, ...]
    """The files that have rows, in their order, by the types in which they store the columns."""
    rows: int
    """The number of rows in the files."""
    left_out: pa.Table | None = field(default=None, repr=False, compare=False)
    """(file, row) of the rows that readers do not get; None if they get all rows."""
    copies: Mapping[Path, Path] = field(default_factory=dict, repr=False, compare=False)
    """file -> the copy that DuckDB reads instead of it, because DuckDB reads no file with a text that is not UTF-8."""

    @property
    def stored(self) -> tuple[str, ...]:
        """The schema columns that at least one of the files has."""
        return tuple(c.name for c in self.schema.columns if any(c.name in run.stored for run in self.runs))

    @property
    def read_as(self) -> dict[str, str]:
        """The columns whose types differ between files or are read as another type, with the types."""
        return read_as(self.schema.columns, self.runs)

    def file_columns(self) -> Iterator[tuple[Path, str, str]]:
        """Yields (file, column, the column's name in the file) of every schema column in every file that has rows."""
        for run in self.runs:
            for file in run.files:
                yield from ((file, column, run.name(column)) for column in run.stored)

    def sql(self, *, located: bool = False, with_stored: bool = False) -> str:
        """Returns a SELECT of every schema column, in the type that readers get, from all rows of the files.

        Args:
          located: whether to add `file` and `row` (the index of the row within the file, from 0).
          with_stored: whether to add "stored COLUMN", the value in the file, for every schema column in the files; it
            is text if the files store the columns in several types.
        """
        return " UNION ALL ".join(self._run_sql(run, located=located, with_stored=with_stored) for run in self.runs)

    def read_from(self, file: Path) -> Path:
        """Returns the file that DuckDB reads for a file of the table: itself, or its copy."""
        return self.copies.get(file, file)

    def _file_sql(self, run: FileRun) -> str:
        copied = [(self.read_from(file), file) for file in run.files if self.read_from(file) != file]
        cases = " ".join(f"WHEN {quoted_text(copy)} THEN {quoted_text(file)}" for copy, file in copied)
        return f"CASE filename {cases} ELSE filename END" if cases else "filename"

    def _run_sql(self, run: FileRun, *, located: bool, with_stored: bool) -> str:
        selected = [f'{sql(c, run.stored.get(c.name), run.name(c.name))} AS "{c.name}"' for c in self.schema.columns]
        if with_stored:
            for column in self.stored:
                value = f'"{run.name(column)}"' if column in run.stored else "NULL"
                value = value if len(self.runs) == 1 else f"CAST({value} AS VARCHAR)"
                selected.append(f'{value} AS "stored {column}"')
        if located:
            selected += [f"{self._file_sql(run)} AS file", "file_row_number AS row"]
        paths = quoted_files(self.read_from(file) for file in run.files)
        return f"SELECT {', '.join(selected)} FROM read_parquet({paths}, hive_partitioning = false)"


def add_view(
    connection: duckdb.DuckDBPyConnection,
    table: TableFiles,
    *,
    view: str | None = None,
    rewrites: pa.Table | None = None,
    located: bool = False,
    with_stored: bool = False,
) -> None:
    """Creates a view of a table, by default under the table's name, without the rows that are left out.

    The view's rows are in the order of the files only if no row is left out; otherwise the reader must order them by
    file and row.

    Args:
      connection: the DuckDB connection.
      table: the table.
      view: the name of the view.
      rewrites: (query, normalised) for the queries that readers get in another form than the stored one.
      located, with_stored: see TableFiles.sql.
    """
    select = table.sql(located=located or table.left_out is not None, with_stored=with_stored)
    if table.left_out is not None:
        _add_table(connection, "left_out", table.name, table.left_out)
        columns = "*" if located else "* EXCLUDE (file, row)"
        select = f"SELECT {columns} FROM ({select}) ANTI JOIN left_out.{table.name} USING (file, row)"
    if rewrites is not None and rewrites.num_rows:
        _add_table(connection, "rewrites", table.name, rewrites)
        select = (
            f"SELECT stored.* REPLACE (coalesce(rewrite.normalised, stored.query) AS query) FROM ({select}) AS stored "
            f"LEFT JOIN rewrites.{table.name} AS rewrite ON stored.query = rewrite.query"
        )
    connection.execute(f"CREATE OR REPLACE VIEW {view or table.name} AS {select}")


def _add_table(connection: duckdb.DuckDBPyConnection, schema: str, name: str, rows: pa.Table) -> None:
    # The table is in a separate schema, so that the connection lists only the log tables.
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    connection.register("arriving", rows)
    connection.execute(f"CREATE OR REPLACE TABLE {schema}.{name} AS SELECT * FROM arriving")
    connection.unregister("arriving")


@contextlib.contextmanager
def named_read_errors(table: TableFiles) -> Iterator[None]:
    """Turns DuckDB's errors in reads of a table into InputError or NamedFailure.

    InputError: a file is damaged. NamedFailure: memory or disk is full.
    """
    try:
        with named_lack_of_room(f"table {table.name}: "):
            yield
    except duckdb.Error as error:
        raise InputError(_unreadable(table, error)) from error


def first_invalid_text(file: Path, name: str) -> tuple[int, str] | None:
    """Returns the row and the bytes of the first text of a column that is not UTF-8; None if no text is wrong."""
    row = 0
    try:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(columns=[name]):
                if wrong := invalid_texts(batch.column(0)):
                    first, value = next(iter(wrong.items()))
                    return row + first, repr(value[:80])
                row += len(batch)
    except (pa.ArrowException, OSError, ValueError):
        return None
    return None


def invalid_texts(values: pa.Array) -> dict[int, bytes]:
    """Returns the bytes of the texts of an array that are not UTF-8, by their index; empty for other types."""
    if not is_text(values.type):
        return {}
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        stored = values.cast(pa.large_binary()).to_pylist()
        return {index: value for index, value in enumerate(stored) if value is not None and not _is_utf8(value)}
    return {}


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unreadable(table: TableFiles, error: duckdb.Error) -> str:
    """Returns a message that names the first file and column of the table that cannot be read to the end.

    It names only the files if each column of each file can be read alone.
    """
    for file, column, name in table.file_columns():
        query = f"SELECT bit_xor(hash({quoted_name(name)})) FROM read_parquet({quoted_files([table.read_from(file)])})"
        try:
            with duckdb.connect() as fresh:
                fresh.execute(query).fetchall()
        except duckdb.Error as column_error:
            if invalid := first_invalid_text(file, name):
                row, shown = invalid
                return (
                    f"table {table.name}, column {column}: {file}, row {row} (counted from 0): the text {shown} is not "
                    "UTF-8; write the texts of the column in UTF-8, or set such rows aside (--on-bad-rows quarantine)"
                )
            return (
                f"table {table.name}, column {column}: {file} is damaged, it cannot be read to its end "
                f"({one_line(column_error)}); write or copy it again"
            )
    files = ", ".join(str(file) for file in table.files[:3])
    return f"table {table.name}: {files} cannot be read ({one_line(error)}); write or copy it again"
