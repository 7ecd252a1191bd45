"""Raw files of a source, read with errors that name file and column, and the tables that an adapter makes from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax.errors import InputError, one_line
from crops_jax.text import normalise_query
from data.tables import connect_duckdb


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Log tables that an adapter made from a source, before the rows that break a rule are dropped.

    dropped: table -> reason -> the number of rows that the adapter itself left out.
    left_empty: table -> reason -> the number of values that cannot be read and that are left empty.
    """

    tables: dict[str, pa.Table]
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    left_empty: dict[str, dict[str, int]] = field(default_factory=dict)


def raw_file(folder: Path, *names: str) -> Path:
    """Returns the first of the names that is a file in the folder. Raises InputError if none of them is."""
    if not folder.is_dir():
        raise InputError(f"--input {folder}: no such directory; give the folder of the source's files")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    present = ", ".join(sorted(file.name for file in folder.iterdir())[:20]) or "nothing"
    raise InputError(f"{folder}: no file {' or '.join(names)}, it holds {present}; check --input and --source")


def query_parquet(
    folder: Path, columns: Mapping[str, Sequence[str]], queries: Mapping[str, str]
) -> dict[str, pa.Table]:
    """Runs DuckDB queries over a source's Parquet files.

    Args:
      folder: the source's folder.
      columns: file stem -> the columns to read. The file becomes a table of that name; its column `row` is the row
        number, from 0.
      queries: name of the result -> SQL. The queries can call `normalise_query(text)`. Times are in UTC.

    Raises:
      InputError: a file or column is missing, or a file does not hold what the source publishes.
    """
    for stem, needed in columns.items():
        _check_columns(raw_file(folder, f"{stem}.parquet"), needed)
    with connect_duckdb() as connection:
        connection.create_function("normalise_query", normalise_query, ["VARCHAR"], "VARCHAR")
        try:
            for stem, needed in columns.items():
                connection.register(f"{stem}_file", pq.read_table(folder / f"{stem}.parquet", columns=list(needed)))
                selected = ", ".join(f'"{column}"' for column in needed)
                connection.execute(
                    f"CREATE TABLE {stem} AS SELECT {selected}, row_number() OVER () - 1 AS row FROM {stem}_file"
                )
            return {name: connection.sql(query).to_arrow_table() for name, query in queries.items()}
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise InputError(
                f"{folder}: its Parquet files do not hold what the source publishes ({one_line(error, limit=300)}); "
                "get them again"
            ) from error


def _check_columns(file: Path, needed: Sequence[str]) -> None:
    try:
        present = pq.read_schema(file).names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{file} is not a Parquet file or is cut off ({one_line(error)}); get it again") from error
    for column in needed:
        if column not in present:
            raise InputError(f"{file}: column {column} is missing, it has {', '.join(present)}; get the file again")
