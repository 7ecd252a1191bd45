"""Hand-made labels, and the page that data.report makes of labels and logs."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax import artifacts
from data.labels.assign_levels import LABEL_SCHEMA
from data.report import ReportArguments, report


def entry(source, level, *, score=None, via_query=None, gap_seconds=None, supporters=None):
    return {
        "source": source,
        "level": level,
        "score": score,
        "via_query": via_query,
        "gap_seconds": gap_seconds,
        "supporters": supporters,
    }


def label(query, doc_id, *entries, **row):
    won = max(entries, key=lambda found: found["level"]) if entries else {}
    made = {"query": query, "doc_id": doc_id, "level": won.get("level"), "source": won.get("source")}
    return {**made, "score": won.get("score"), "evidence": json.dumps(entries) if entries else None, **row}


LABELS = [
    label(
        "red lamp",
        "d0",
        entry("query_level", 5, score=0.9, via_query="lamp", gap_seconds=40.0, supporters=3),
        entry("query_level", 5, score=0.9, via_query="lamp red", gap_seconds=20.0, supporters=2),
        entry("search_log", 4, supporters=1),
    ),
    label(
        "red lamp",
        "d1",
        entry("shown_not_clicked", 3, supporters=1),
        entry("system_level", 4, score=0.7, gap_seconds=90.0, supporters=1),
    ),
    label(
        "red lamp",
        "d2",
        entry("filtered_before_ranking", 1, supporters=1),
        entry("query_level", 5, score=0.8, via_query="lamp", gap_seconds=90.0, supporters=1),
        entry("ranked_not_shown", 2, supporters=1),
        entry("system_level", 4, score=0.8, gap_seconds=1800.0, supporters=5),
    ),
    label("red lamp", "d3", entry("filtered_before_ranking", 1, supporters=1)),
    label("red lamp", "d8", entry("system_level", 4, score=0.65, gap_seconds=0.0, supporters=1)),
    label("blue chair", "d5", entry("search_log", 4, supporters=1)),
    label("blue chair", "d4", entry("shown_not_clicked", 3, supporters=1)),
    label("blue chair", "d9", entry("system_level", 4, score=0.61, gap_seconds=200.0, supporters=2)),
    label("vase", "d6", entry("query_level", 5, score=0.95, via_query="vases", gap_seconds=20.0, supporters=1)),
    label("vase", "k0", entry("knowledge_level", 4)),
    # Evidence that names nothing, as a table may have that somebody brings.
    label("clock", "k1", level=4, source="knowledge_level"),
    label("clock", "d99", level=3, source="model_mined"),
    label("never asked", "k2", entry("knowledge_level", 4)),
]


def mined_labels(path, rows, logs, *, arguments=(), sweep=None, **mined):
    """A label table with the manifest of data.mine."""
    with artifacts.output_directory(
        path,
        overwrite=False,
        program="data.mine",
        kind="labels",
        arguments=dict(arguments),
        inputs={"logs": logs},
        mined=mined,
    ) as out:
        pq.write_table(pa.Table.from_pylist(rows, LABEL_SCHEMA), out / "labels.parquet")
        if sweep is not None:
            (out / "alpha_sweep.json").write_text(json.dumps(sweep))
    return path


def page_of(tmp_path, labels, logs, **arguments):
    output = tmp_path / "report.html"
    outcome = report(ReportArguments(labels=str(labels), logs=str(logs), output=str(output), **arguments))
    return outcome, output.read_text()
