"""The label table, checked and read: the one reader of data.write_records and data.inspect."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from crops_jax import artifacts
from crops_jax.errors import InputError
from data.table_checks import check_table
from data.table_damage import named_read_errors
from data.table_files import TableFiles, find_table
from data.table_schemas import LABELS
from data.tables import connect_duckdb


@contextlib.contextmanager
def open_labels(labels: Path | str) -> Iterator[tuple[duckdb.DuckDBPyConnection, TableFiles]]:
    """A DuckDB connection with a view `labels` of LABELS/labels.parquet or of the files in LABELS/labels/.

    The view has the columns of LABELS in their types, `query` normalised as everywhere, and file and row. A table
    brought by a user needs no manifest; a directory with one has to hold labels.

    Raises:
      InputError: naming file, row and column where a column is missing or of another type, a value is null or out of
        its range, or a pair occurs twice; and for an empty table.
    """
    path = Path(labels)
    if (path / artifacts.MANIFEST).exists() and (kind := artifacts.read_manifest(path)["kind"]) != "labels":
        raise InputError(f"{path} holds {kind}, not labels; give a directory that data.mine wrote")
    table = find_table(path, "labels", LABELS)
    if table is None:
        raise InputError(f"{path}: neither labels.parquet nor a folder labels in it; give one that data.mine wrote")
    if not table.rows:
        raise InputError(f"{table.files[0]}: no labels; mine from more logs or with other perspectives")
    with connect_duckdb() as connection:
        check_table(connection, table)
        yield connection, table


def read_labels(labels: Path | str) -> pa.Table:
    """query, doc_id and level of a label table, in the order of its files. Raises InputError as `open_labels` does."""
    columns = ("query", "doc_id", "level")
    schema = pa.schema([LABELS.arrow.field(name) for name in columns])
    with open_labels(labels) as (connection, table), named_read_errors(table):
        return (
            connection.sql(f"SELECT {', '.join(columns)} FROM labels ORDER BY file, row").to_arrow_table().cast(schema)
        )


def mined_from(labels: Path | str) -> str | None:
    """The fingerprint of the log tables that a label directory goes back to; None where no manifest tells."""
    if not (Path(labels) / artifacts.MANIFEST).exists():
        return None
    manifest = artifacts.read_manifest(labels)
    while manifest and "logs" not in manifest["inputs"]:
        # launch.mine_negatives makes labels from labels.
        manifest = manifest["inputs"].get("labels", {}).get("manifest")
    return manifest["inputs"]["logs"]["fingerprint"] if manifest else None


def check_mined_from(labels: Path | str, logs: Path | str) -> None:
    """Raises InputError when labels were mined from other log tables than `logs`."""
    expected = mined_from(labels)
    if expected is not None and expected != (found := artifacts.fingerprint(logs)):
        raise InputError(
            f"--labels {labels} were mined from other log tables (fingerprint {expected[:12]}) than --logs {logs} "
            f"({found[:12]}); give the logs that data.mine read, or mine again"
        )


def _read(file: Path) -> pa.Table:
    try:
        opened = pq.ParquetFile(file)
        missing = sorted(set(_REQUIRED) - set(opened.schema_arrow.names))
        if missing:
            raise InputError(f"{file}: column {missing[0]} is missing; a label table has query, doc_id, level, source")
        table = opened.read(columns=list(_REQUIRED))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: cannot be read ({str(error).splitlines()[0]}); mine the labels again") from error
    columns = [_cast(table.column(name), kind, file, name) for name, kind in _REQUIRED.items()]
    levels = columns[-1]
    wrong = pc.or_(pc.less(levels, min(Level)), pc.greater(levels, max(Level)))
    if pc.any(wrong).as_py():
        row = pc.index(wrong, True).as_py()
        raise InputError(f"{file}, row {row}, column level: {levels[row]} is not a level of 0 to 5; correct it")
    return pa.table(columns, names=list(_REQUIRED))


def _cast(column: pa.ChunkedArray, kind: pa.DataType, file: Path, name: str) -> pa.ChunkedArray:
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise InputError(f"{file}, row {row}, column {name}: null; every label has query, doc_id and level")
    textual = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if pa.types.is_string(kind) != (textual or pa.types.is_dictionary(column.type)):
        raise InputError(f"{file}, column {name}: {column.type} instead of {kind}; write it in that type")
    try:
        return column.cast(kind)
    except pa.ArrowInvalid as error:
        raise InputError(f"{file}, column {name}: {error}; write it as {kind}") from error


def _check_queries(table: pa.Table, path: Path) -> None:
    for query in pc.unique(table.column("query")).to_pylist():
        if query != normalise_query(query) or not query:
            row = pc.index(table.column("query"), query).as_py()
            raise InputError(
                f"{path}, row {row}, column query: {query!r} is not normalised (it would be "
                f"{normalise_query(query)!r}); labels keep queries as crops_jax.text.normalise_query gives them"
            )


def _check_pairs(table: pa.Table, path: Path) -> None:
    counted = table.group_by(["query", "doc_id"]).aggregate([([], "count_all")])
    repeated = counted.filter(pc.greater(counted.column("count_all"), 1))
    if len(repeated):
        first = repeated.slice(0, 1).to_pylist()[0]
        raise InputError(
            f"{path}: query {first['query']!r} and doc_id {first['doc_id']!r} occur {first['count_all']} times; a pair "
            "has one label, its highest"
        )
