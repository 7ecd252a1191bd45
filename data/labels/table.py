"""The checks and the reader of the label table, which all programs use."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from crops_jax import artifacts
from crops_jax.artifacts.lineage import manifest_or_none, read_from
from crops_jax.errors import InputError
from data.perspectives.knowledge_level import SOURCE as WRITTEN
from data.tables import connect_duckdb
from data.tables.checks import check_table
from data.tables.files import TableFiles, named_read_errors
from data.tables.footers import find_table
from data.tables.schemas import LABELS


@contextlib.contextmanager
def open_labels(labels: Path | str) -> Iterator[tuple[duckdb.DuckDBPyConnection, TableFiles]]:
    """Opens LABELS/labels.parquet or the files in LABELS/labels/ as the view `labels` of a DuckDB connection.

    The view has the columns of the schema LABELS in their types, with `query` normalised, and file and row. A table
    from a user needs no manifest; a directory with a manifest must hold labels.

    Yields:
      the connection and the files of the table.

    Raises:
      InputError: a column is missing or has another type, a value is null or out of its range, a pair occurs twice, or
        the table is empty. The message names the file, row and column.
    """
    table = _find_label_table(Path(labels))
    with connect_duckdb() as connection:
        check_table(connection, table)
        yield connection, table


def check_labels(labels: Path | str) -> tuple[TableFiles, pa.Table]:
    """Checks a label table.

    Returns:
      the files of the table, and (query, normalised) for its queries that are stored in another form.

    Raises:
      InputError: a rule is broken, as for `open_labels`.
    """
    table = _find_label_table(Path(labels))
    with connect_duckdb() as connection:
        return table, check_table(connection, table)


def read_labels(labels: Path | str) -> pa.Table:
    """Reads query, doc_id, level and written of a label table; its rows are in no particular order.

    The column written is whether a language model wrote the document.

    Raises InputError as `open_labels` does.
    """
    columns = ("query", "doc_id", "level")
    schema = pa.schema([*(LABELS.arrow.field(name) for name in columns), pa.field("written", pa.bool_())])
    selected = f"{', '.join(columns)}, source = '{WRITTEN}' AS written"
    with open_labels(labels) as (connection, table), named_read_errors(table):
        return connection.sql(f"SELECT {selected} FROM labels").to_arrow_table().cast(schema)


def read_queries(labels: Path | str) -> list[str]:
    """Returns the distinct queries of a label table, sorted. Raises InputError as `open_labels` does."""
    with open_labels(labels) as (connection, table), named_read_errors(table):
        return connection.sql("SELECT DISTINCT query FROM labels ORDER BY query").to_arrow_table()[0].to_pylist()


def mined_from(labels: Path | str) -> str | None:
    """Returns the fingerprint of the log tables from which labels were mined; None if no manifest records it."""
    logs = read_from(manifest_or_none(labels), "logs")
    return logs[0] if logs else None


def check_mined_from(labels: Path | str, logs: Path | str) -> None:
    """Raises InputError if labels were mined from other log tables than `logs`."""
    expected = mined_from(labels)
    if expected is not None and expected != (actual := artifacts.fingerprint(logs)):
        raise InputError(
            f"--labels {labels} were mined from other log tables (fingerprint {expected[:12]}) than --logs {logs} "
            f"({actual[:12]}); give the logs that data.mine read, or mine again"
        )


def _find_label_table(path: Path) -> TableFiles:
    if (path / artifacts.MANIFEST).exists() and (kind := artifacts.read_manifest(path)["kind"]) != "labels":
        raise InputError(f"{path} holds {kind}, not labels; give a directory that data.mine wrote")
    table = find_table(path, "labels", LABELS)
    if table is None:
        raise InputError(
            f"{path}: neither labels.parquet nor a folder labels is in it; give a directory that data.mine wrote"
        )
    if not table.rows:
        raise InputError(f"{table.files[0]} has no labels; mine from more logs or with other perspectives")
    return table
