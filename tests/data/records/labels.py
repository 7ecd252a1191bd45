"""Labels and written documents, the arguments to write records of them, and what was written."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax import artifacts, records
from data.tables import write_table
from data.write_records import WriteRecordsArguments

THINGS = ["red shoe", "blue lamp", "garden hose", "green chair", "white table", "old clock", "small bird", "long rope"]


def label_rows(queries: int = 12) -> list[tuple[str, str, int]]:
    """One positive of level 5, one of 4, hard negatives of levels 1 to 3, one unknown document a query."""
    rows = []
    for number in range(queries):
        query = f"{THINGS[number % 8]} {number}"
        rows += [(query, f"d{number}", 5), (query, f"k{number % 3}", 4), (query, f"gone{number}", 3)]
        rows += [(query, f"d{(number + other) % 12}", 1 + other % 3) for other in range(1, 9)]
    return rows


def write_labels(path: Path, rows, *, logs: Path | None = None) -> Path:
    table = pa.table(
        {
            "query": pa.array([row[0] for row in rows], pa.string()),
            "doc_id": pa.array([row[1] for row in rows], pa.string()),
            "level": pa.array([row[2] for row in rows], pa.int8()),
            "source": ["search_log"] * len(rows),
        }
    )
    path.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path / "labels.parquet")
    if logs is not None:
        manifest = artifacts.new_manifest(program="data.mine", kind="labels", arguments={}, inputs={"logs": logs})
        artifacts.write_manifest(path, manifest)
    return path


def arguments(labels: Path, logs: Path, output: Path, **changed) -> WriteRecordsArguments:
    given = {"vocabulary_size": 120, "max_tokens": 12, "max_query_tokens": 8, "num_shards": 2, "dev_fraction": 0.2}
    return WriteRecordsArguments(labels=str(labels), logs=str(logs), output=str(output), **{**given, **changed})


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def all_records(path: Path) -> list[records.QueryRecord]:
    return [record for split in records.splits(path) for record in records.RecordSource(path, split=split)]


def table(rows) -> pa.Table:
    return pa.table(
        {
            "query": [row[0] for row in rows],
            "doc_id": [row[1] for row in rows],
            "level": pa.array([row[2] for row in rows], "i1"),
            "written": [False] * len(rows),
        }
    )


def write_documents(path: Path, titles: dict[str, str]) -> Path:
    path.mkdir()
    rows = {
        "query": ["a"] * len(titles),
        "doc_id": list(titles),
        "title": list(titles.values()),
        "text": [""] * len(titles),
        "model": ["m"] * len(titles),
        "prompt_sha256": ["0"] * len(titles),
    }
    write_table(path, "knowledge_documents", pa.table(rows))
    return path


def with_source(path: Path, rows, sources: list[str]) -> Path:
    file = write_labels(path, rows) / "labels.parquet"
    labels = pq.read_table(file)
    pq.write_table(labels.set_column(labels.column_names.index("source"), "source", pa.array(sources)), file)
    return path
