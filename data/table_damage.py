"""What is said when DuckDB finds a table's files damaged, or has no room for its work."""

import contextlib
import tempfile
from collections.abc import Iterator

import duckdb

from crops_jax.errors import InputError, NamedFailure
from data.table_files import TableFiles, sql_text


@contextlib.contextmanager
def named_read_errors(table: TableFiles) -> Iterator[None]:
    """Turns DuckDB's errors while it reads a table into InputError (a damaged file) or NamedFailure (no room)."""
    try:
        with named_lack_of_room(f"table {table.name}: "):
            yield
    except duckdb.Error as error:
        raise InputError(_unreadable(table, error)) from error


@contextlib.contextmanager
def named_lack_of_room(what: str = "") -> Iterator[None]:
    """Turns DuckDB's complaint that it ran out of memory or disk into NamedFailure; other errors pass."""
    try:
        yield
    except duckdb.Error as error:
        if not isinstance(error, duckdb.OutOfMemoryException) and "No space left" not in str(error):
            raise
        raise NamedFailure(
            f"{what}neither memory nor the temporary directory {tempfile.gettempdir()} has room for the work of DuckDB "
            f"({_one_line(error)}); free some, allow more with --memory-limit, or set TMPDIR to a larger disk"
        ) from error


def _unreadable(table: TableFiles, error: duckdb.Error) -> str:
    """Names the first file of the table that cannot be read to its end, and the column where one alone is at fault."""
    for file in table.files:
        for column in table.stored:
            query = f"SELECT bit_xor(hash(\"{column}\")) FROM read_parquet('{sql_text(file)}')"
            try:
                with duckdb.connect() as fresh:
                    fresh.execute(query).fetchall()
            except duckdb.Error as found:
                return (
                    f"table {table.name}, column {column}: {file} is damaged, it cannot be read to its end "
                    f"({_one_line(found)}); write or copy it again"
                )
    files = ", ".join(str(file) for file in table.files[:3])
    return f"table {table.name}: {files} cannot be read ({_one_line(error)}); write or copy it again"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
