"""Descriptions of directories with tables: logs, labels, evaluations. Each function reads the whole directory."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax.artifacts import MANIFEST, read_manifest
from crops_jax.artifacts.json_fields import read_json
from crops_jax.errors import InputError, one_line
from crops_jax.labels import Level
from data.inspection.training import describe_discriminator
from data.labels.table import open_labels
from data.tables import open_logs

_SAMPLES = 3
_REMEDY = "write the directory again"
_MAX_VALUES = 30


def describe_logs(path: Path) -> dict[str, Any]:
    """Describes log tables or the output of data.hold_out: rows, stages, clicks, grades, times, and the first rows."""
    logs = open_logs(path)
    connection = logs.connect().con
    content: dict[str, Any] = {"rows": {name: logs.num_rows(name) for name in sorted(logs.names)}}
    if "searches" in logs.names:
        content["searches"] = _row(
            connection,
            "SELECT count(DISTINCT user_id) AS users, count(DISTINCT query) AS queries, "
            'count(DISTINCT "group") AS groups, CAST(min(time) AS VARCHAR) AS first, '
            "CAST(max(time) AS VARCHAR) AS last FROM searches",
        )
    if "candidates" in logs.names:
        content["stages"] = _histogram(connection, "stage", "candidates")
        content["candidates"] = _row(
            connection,
            "SELECT count(*) FILTER (clicked) AS clicked, count(*) FILTER (liked) AS liked, "
            "count(watch_seconds) AS watched, median(watch_seconds) AS median_watch_seconds FROM candidates",
        )
    if "judgements" in logs.names:
        content["grades"] = _histogram(connection, "grade", "judgements")
        content["splits"] = _histogram(connection, "split", "judgements")
    content["unknown_documents"] = {
        name: connection.execute(f"SELECT count(*) FROM {name} ANTI JOIN documents USING (doc_id)").fetchall()[0][0]
        for name in ("judgements", "test_clicks", "test_reformulations")
        if name in logs.names
    }
    content["samples"] = {name: _first_rows(connection, name) for name in sorted(logs.names)}
    expected = {name for table in logs.names for name in (table, f"{table}.parquet")} | {MANIFEST, "discriminator"}
    content["not_log_tables"] = sorted(entry.name for entry in path.iterdir() if entry.name not in expected)
    if (path / "discriminator").is_dir():
        content["discriminator"] = describe_discriminator(path / "discriminator")
    return content


def describe_labels(path: Path) -> dict[str, Any]:
    """Describes a label table: rows by level and by source, and the first rows."""
    with open_labels(path) as (connection, table):
        levels = _histogram(connection, "level", "labels")
        content = {
            "rows": table.rows,
            **_row(
                connection, "SELECT count(DISTINCT query) AS queries, count(DISTINCT doc_id) AS documents FROM labels"
            ),
            "levels": {f"{level} {Level(int(level)).name}": number for level, number in levels.items()},
            "sources": _histogram(connection, "source", "labels"),
            "samples": _first_rows(connection, "labels", leave_out=("file", "row")),
        }
    if (path / "alpha_sweep.json").exists():
        content["alpha_sweep"] = read_json(path / "alpha_sweep.json", remedy=_REMEDY)
    return content


def describe_quarantine(path: Path) -> dict[str, Any]:
    """Describes rows in quarantine: their number by table and by reason, and the first rows of each table."""
    files = sorted(path.glob("*.parquet"))
    rows = {file.stem: _read_parquet(file) for file in files}
    samples = {file.stem: pq.read_table(file).slice(0, _SAMPLES).to_pylist() for file in files}
    return {"rows": rows, "reasons": read_manifest(path).get("quarantined"), "samples": samples}


def describe_mining_state(path: Path) -> dict[str, Any]:
    """Describes the state of mining by days: rows of each day and of the scores, and the parameters of every day."""
    rows = {
        folder: {file.stem: _read_parquet(file) for file in sorted((path / folder).glob("[0-9]*.parquet"))}
        for folder in ("days", "scores")
    }
    return {**rows, "mined_with": read_manifest(path).get("arguments")}


def describe_evaluation(path: Path) -> dict[str, Any]:
    """Describes an evaluation: its metrics, and the number of rows of each of its tables."""
    metrics = read_json(path / "metrics.json", remedy=_REMEDY)
    if not (path / "per_query.parquet").is_file():
        raise InputError(f"{path / 'per_query.parquet'}: no such file; call launch.evaluate again")
    files = sorted(path.rglob("*.parquet"))
    return {"rows": {str(file.relative_to(path)): _read_parquet(file) for file in files}, "metrics": metrics}


def _read_parquet(file: Path) -> int:
    rows = 0
    try:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches():
                batch.validate(full=True)
                rows += batch.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{file}, after row {rows}: cannot be read ({one_line(error)}); write the directory again"
        ) from error
    return rows


def _histogram(connection: duckdb.DuckDBPyConnection, column: str, table: str) -> dict[str, int]:
    """Returns the number of rows by value, in the order of the values. Only the most frequent values are counted."""
    return dict(
        connection.execute(
            "SELECT coalesce(CAST(value AS VARCHAR), 'null'), number FROM ("
            f"SELECT {column} AS value, count(*) AS number FROM {table} GROUP BY {column} "
            f"ORDER BY number DESC, value LIMIT {_MAX_VALUES}) ORDER BY value"
        ).fetchall()
    )


def _row(connection: duckdb.DuckDBPyConnection, query: str) -> dict[str, Any]:
    return connection.sql(query).to_arrow_table().to_pylist()[0]


def _first_rows(connection: duckdb.DuckDBPyConnection, table: str, *, leave_out: tuple[str, ...] = ()) -> list[dict]:
    rows = connection.sql(f"FROM {table} LIMIT {_SAMPLES}").to_arrow_table().drop_columns(list(leave_out)).to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]
