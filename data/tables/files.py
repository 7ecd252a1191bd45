"""The Parquet files of a log table, and the check that their columns are those of its schema."""

import contextlib
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax.errors import InputError, one_line
from data.tables.days import DaySpan, of_days
from data.tables.duckdb_session import named_lack_of_room
from data.tables.schemas import KINDS, SCHEMAS, TableSchema


@dataclass(frozen=True, kw_only=True)
class TableFiles:
    """The files of one table and, for each schema column in them, the type in which it is stored."""

    name: str
    schema: TableSchema
    files: tuple[Path, ...]
    stored: dict[str, pa.DataType]
    rows: int
    """The number of rows in the files."""
    left_out: pa.Table | None = field(default=None, repr=False, compare=False)
    """(file, row) of the rows that readers do not get; None if they get all rows."""

    def sql(self, *, located: bool = False, with_stored: bool = False) -> str:
        """Returns a SELECT of every schema column, in the type that readers get, from all rows of the files.

        Args:
          located: whether to add `file` and `row` (the index of the row within the file, from 0).
          with_stored: whether to add "stored COLUMN", the value in the file, for every schema column in the files.
        """
        selected = [f'{c.sql(self.stored.get(c.name))} AS "{c.name}"' for c in self.schema.columns]
        if with_stored:
            selected += [f'"{name}" AS "stored {name}"' for name in self.stored]
        if located:
            selected += ["filename AS file", "file_row_number AS row"]
        paths = ", ".join(f"'{sql_text(file)}'" for file in self.files)
        return f"SELECT {', '.join(selected)} FROM read_parquet([{paths}], hive_partitioning = false)"


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


def find_tables(directory: Path, *, days: DaySpan | None = None) -> dict[str, TableFiles]:
    """Returns the log tables in a directory by their names. Raises InputError as find_table does."""
    tables = ((name, find_table(directory, name, schema, days=days)) for name, schema in SCHEMAS.items())
    return {name: table for name, table in tables if table}


def find_table(directory: Path, name: str, schema: TableSchema, *, days: DaySpan | None = None) -> TableFiles | None:
    """Returns the file DIRECTORY/NAME.parquet or the files of the folder DIRECTORY/NAME.

    The footers of the files are read, and their columns are checked. With `days`, folders day=YYYY-MM-DD of
    other days are not opened; see data.tables.days.

    Returns:
      the files of the table, or None if neither the file nor the folder exists.

    Raises:
      InputError: a file is not a Parquet file or is cut off, a column is missing or has a wrong type, or files differ
        in their columns.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; give the directory that holds the tables")
    files = _files(directory, name, days)
    return _read_footers(name, schema, files) if files else None


def _files(directory: Path, name: str, days: DaySpan | None) -> list[Path]:
    paths = [path for path in (directory / f"{name}.parquet", directory / name) if path.exists()]
    if not paths:
        return []
    if len(paths) > 1:
        raise InputError(f"table {name}: both {paths[0]} and {paths[1]} exist; keep one of them")
    (path,) = paths
    if path.is_file():
        if path.suffix != ".parquet":
            raise InputError(f"table {name}: {path} is a file; name it {name}.parquet, or make a folder of files")
        return [path]
    # Spark and file systems write files of their own, whose names begin with a dot or an underscore.
    files = sorted(
        (
            file
            for file in path.rglob("*")
            if file.is_file() and not any(part[0] in "._" for part in file.relative_to(path).parts)
        ),
        key=str,  # DuckDB has the same order, so "an earlier row" means the same in both
    )
    for file in files:
        if file.suffix != ".parquet":
            raise InputError(f"table {name}: {file} does not end in .parquet; rename it, or move it out of the folder")
    if not files:
        raise InputError(f"table {name}: the folder {path} holds no Parquet file; fill it or remove it")
    return files if days is None else of_days(name, path, files, days)


def _read_footers(name: str, table_schema: TableSchema, files: list[Path]) -> TableFiles:
    first: dict[str, pa.DataType] = {}
    rows = 0
    for number, file in enumerate(files):
        schema, file_rows = _read_footer(name, file)
        rows += file_rows
        stored = _stored_types(name, table_schema, file, schema)
        if number == 0:
            first = stored
            continue
        for column in table_schema.columns:
            other_type, first_type = stored.get(column.name), first.get(column.name)
            if _type_family(other_type) != _type_family(first_type):
                raise InputError(
                    f"table {name}, column {column.name}: {file} has {other_type or 'no such column'}, but {files[0]} "
                    f"has {first_type or 'no such column'}; write all files of a table with the same columns and types"
                )
    return TableFiles(name=name, schema=table_schema, files=tuple(files), stored=first, rows=rows)


def _read_footer(name: str, file: Path) -> tuple[pa.Schema, int]:
    try:
        with pq.ParquetFile(file) as opened:
            return opened.schema_arrow, opened.metadata.num_rows
    except PermissionError as error:  # Arrow's message does not name the file
        raise InputError(f"table {name}: {file} must not be read by this user; check its permissions") from error
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"table {name}: {file} is not a Parquet file or is cut off ({one_line(error)}); write or copy it again"
        ) from error


def _stored_types(name: str, table_schema: TableSchema, file: Path, schema: pa.Schema) -> dict[str, pa.DataType]:
    folded = [column.casefold() for column in schema.names]
    stored = {}
    for column in table_schema.columns:
        if folded.count(column.name) > 1:
            raise InputError(
                f"table {name}, column {column.name}: {file} holds it more than once if case is ignored; "
                "keep one of them"
            )
        if column.name not in schema.names:
            if column.required:
                raise InputError(_missing_column(name, table_schema, column.name, file, schema.names))
            continue
        kind = schema.field(column.name).type
        if not column.accepts(kind):
            raise InputError(
                f"table {name}, column {column.name}: {file} holds it as {kind}; it must be "
                f"{KINDS[column.kind].stored_as}; cast it and write the table again"
            )
        stored[column.name] = kind
    return stored


def _missing_column(table: str, schema: TableSchema, column: str, file: Path, present: list[str]) -> str:
    known = {known.name for known in schema.columns}
    close = difflib.get_close_matches(column, [other for other in present if other not in known], n=1)
    hint = f"rename {close[0]}" if close else "add it"
    return (
        f"table {table}, column {column}: missing from {file}, which has {', '.join(present) or 'no columns'}; "
        f"required are {', '.join(schema.required)}; {hint}"
    )


def _type_family(stored: pa.DataType | None) -> str:
    """Returns the group of a stored type; the files of a table can mix types of one group.

    All encodings of text are one group, and a dictionary belongs to the group of its values.
    """
    if stored is None:
        return "absent"
    plain = stored.value_type if pa.types.is_dictionary(stored) else stored
    if pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain):
        return "text"
    return str(plain)


def sql_text(path: Path) -> str:
    """Returns a path as text for the quotes of read_parquet; characters that would make it a pattern are escaped."""
    return re.sub(r"([*?\[])", r"[\1]", str(path)).replace("'", "''")


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


def _unreadable(table: TableFiles, error: duckdb.Error) -> str:
    """Returns a message that names the first file and column of the table that cannot be read to the end.

    It names only the files if each column of each file can be read alone.
    """
    for file in table.files:
        for column in table.stored:
            query = f"SELECT bit_xor(hash(\"{column}\")) FROM read_parquet('{sql_text(file)}')"
            try:
                with duckdb.connect() as fresh:
                    fresh.execute(query).fetchall()
            except duckdb.Error as column_error:
                return (
                    f"table {table.name}, column {column}: {file} is damaged, it cannot be read to its end "
                    f"({one_line(column_error)}); write or copy it again"
                )
    files = ", ".join(str(file) for file in table.files[:3])
    return f"table {table.name}: {files} cannot be read ({one_line(error)}); write or copy it again"
