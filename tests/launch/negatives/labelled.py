"""Labels of one query and documents at known cosines to it, and what is mined of them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax import artifacts
from data.labels.assign_levels import LABEL_SCHEMA
from launch.mine_negatives import MineNegativesArguments
from launch.negatives.mined_labels import SOURCE

# Cosines to the query "red shoe", which is (1, 0): best first.
COSINES = {"a": 0.9, "b": 0.8, "c": 0.8, "d": 0.7, "e": 0.6, "f": 0.5, "g": -0.2}
ENTRY = '"via_query": null, "gap_seconds": null, "supporters": null}'
KEPT = '[{"source": "shown_not_clicked", "level": 3, "score": null, ' + ENTRY + "]"
LABELS = [
    ("red shoe", "a", 4, "search_log", None, '[{"source": "search_log", "level": 4}]'),
    ("red shoe", "e", 3, "shown_not_clicked", None, KEPT),
    ("red shoe", "f", 1, "filtered_before_ranking", 0.25, None),
]


def write_labels(path, rows=LABELS, *, logs=None, files=1):
    path.mkdir(parents=True)
    table = pa.Table.from_pylist([dict(zip(LABEL_SCHEMA.names, row, strict=True)) for row in rows], LABEL_SCHEMA)
    if files == 1:
        pq.write_table(table, path / "labels.parquet")
    else:
        (path / "labels").mkdir()
        for number in range(files):
            pq.write_table(table.slice(number, 1), path / "labels" / f"{number}.parquet")
    if logs is not None:
        manifest = artifacts.new_manifest(program="data.mine", kind="labels", arguments={}, inputs={"logs": logs})
        artifacts.write_manifest(path, manifest)
    return path


def read_rows(path):
    return pq.read_table(Path(path) / "labels.parquet").to_pylist()


def arguments(folders, **given):
    named = {name: str(folders / name) for name in ("labels",)}
    named |= {
        f"{name}_embeddings": str(folders / place) for name, place in (("query", "queries"), ("document", "documents"))
    }
    return MineNegativesArguments(**({**named, "output": str(folders / "mined"), "level": 2} | given))


def new_rows(path):
    return [row["doc_id"] for row in read_rows(path) if row["source"] == SOURCE]


def write_logs(path, judgements=(), documents=COSINES):
    path.mkdir()
    titles = [{"doc_id": i, "title": {"c": "RED  shoe", "a": "red shoe"}.get(i, f"thing {i}")} for i in documents]
    pq.write_table(pa.Table.from_pylist(titles), path / "documents.parquet")
    kept = judgements or [("lamp", "a", 1.0, "dev")]
    columns = dict(zip(("query", "doc_id", "grade", "split"), map(list, zip(*kept, strict=True)), strict=True))
    columns["split"] = pa.array(columns["split"], pa.string())
    pq.write_table(pa.table(columns), path / "judgements.parquet")
    return path
