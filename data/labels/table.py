"""The label table, checked and read: the one reader of data.write_records and data.inspect."""

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
from data.tables.files import TableFiles, find_table, named_read_errors
from data.tables.schemas import LABELS


@contextlib.contextmanager
def open_labels(labels: Path | str) -> Iterator[tuple[duckdb.DuckDBPyConnection, TableFiles]]:
    """A DuckDB connection with a view `labels` of LABELS/labels.parquet or of the files in LABELS/labels/.

    The view has the columns of LABELS in their types, `query` normalised as everywhere, and file and row. A table
    brought by a user needs no manifest; a directory with one has to hold labels.

    Raises:
      InputError: naming file, row and column where a column is missing or of another type, a value is null or out of
        its range, or a pair occurs twice; and for an empty table.
    """
    table = _find(Path(labels))
    with connect_duckdb() as connection:
        check_table(connection, table)
        yield connection, table


def check_labels(labels: Path | str) -> tuple[TableFiles, pa.Table]:
    """The files of a label table, and (query, normalised) of its queries that are stored in another form.

    Raises InputError as `open_labels` does.
    """
    table = _find(Path(labels))
    with connect_duckdb() as connection:
        return table, check_table(connection, table)


def read_labels(labels: Path | str) -> pa.Table:
    """query, doc_id, level and whether the document is a written one of a label table, its rows in no certain order.

    Raises InputError as `open_labels` does.
    """
    columns = ("query", "doc_id", "level")
    schema = pa.schema([*(LABELS.arrow.field(name) for name in columns), pa.field("written", pa.bool_())])
    selected = f"{', '.join(columns)}, source = '{WRITTEN}' AS written"
    with open_labels(labels) as (connection, table), named_read_errors(table):
        return connection.sql(f"SELECT {selected} FROM labels").to_arrow_table().cast(schema)


def read_queries(labels: Path | str) -> list[str]:
    """The distinct queries of a label table, sorted. Raises InputError as `open_labels` does."""
    with open_labels(labels) as (connection, table), named_read_errors(table):
        return connection.sql("SELECT DISTINCT query FROM labels ORDER BY query").to_arrow_table()[0].to_pylist()


def mined_from(labels: Path | str) -> str | None:
    """The fingerprint of the log tables that a label directory goes back to; None where no manifest tells."""
    logs = read_from(manifest_or_none(labels), "logs")
    return logs[0] if logs else None


def check_mined_from(labels: Path | str, logs: Path | str) -> None:
    """Raises InputError when labels were mined from other log tables than `logs`."""
    expected = mined_from(labels)
    if expected is not None and expected != (found := artifacts.fingerprint(logs)):
        raise InputError(
            f"--labels {labels} were mined from other log tables (fingerprint {expected[:12]}) than --logs {logs} "
            f"({found[:12]}); give the logs that data.mine read, or mine again"
        )


def _find(path: Path) -> TableFiles:
    if (path / artifacts.MANIFEST).exists() and (kind := artifacts.read_manifest(path)["kind"]) != "labels":
        raise InputError(f"{path} holds {kind}, not labels; give a directory that data.mine wrote")
    table = find_table(path, "labels", LABELS)
    if table is None:
        raise InputError(f"{path}: neither labels.parquet nor a folder labels in it; give one that data.mine wrote")
    if not table.rows:
        raise InputError(f"{table.files[0]}: no labels; mine from more logs or with other perspectives")
    return table
