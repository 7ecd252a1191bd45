"""The label table, read and checked."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops_jax import artifacts
from crops_jax.errors import InputError
from crops_jax.labels import Level
from crops_jax.text import normalise_query

_REQUIRED = {"query": pa.string(), "doc_id": pa.string(), "level": pa.int8()}


def read_labels(labels: Path | str) -> pa.Table:
    """query, doc_id and level of LABELS/labels.parquet or of the files in LABELS/labels/.

    A table brought by a user needs no manifest; a directory with one has to hold labels.

    Raises:
      InputError: naming the file, and the row or column in it, where a column is missing, of another type or null, a
        level is not 0 to 5, a query is not in its normalised form, or a pair occurs twice; and for an empty table.
    """
    path = Path(labels)
    if not path.is_dir():
        raise InputError(f"{path}: no such directory; give one that data.mine wrote")
    if (path / artifacts.MANIFEST).exists() and (kind := artifacts.read_manifest(path)["kind"]) != "labels":
        raise InputError(f"{path} holds {kind}, not labels; give a directory that data.mine wrote")
    files = (
        [path / "labels.parquet"]
        if (path / "labels.parquet").exists()
        else sorted((path / "labels").rglob("*.parquet"))
    )
    if not files:
        raise InputError(f"{path}: neither labels.parquet nor files in labels/; give a directory that data.mine wrote")
    table = pa.concat_tables([_read(file) for file in files])
    if not len(table):
        raise InputError(f"{files[0]}: no labels; mine from more logs or with other perspectives")
    _check_queries(table, path)
    _check_pairs(table, path)
    return table


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
