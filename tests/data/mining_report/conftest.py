"""The hand-made log and label table whose every figure was worked out by hand."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.labels.assign_levels import LABEL_SCHEMA
from data.mining_report.tables import open_tables
from tests.data.mining_report.labels import LABELS


@pytest.fixture
def tables(at):
    """Red lamp is searched three times, blue chair twice, vase and clock once."""
    queries = ["Red  Lamp", "red lamp", "red lamp", "blue chair", "blue chair", "vase", "clock"]
    shown = {"stage": "shown", "clicked": False}
    return {
        "searches": [
            {"search_id": f"s{i}", "user_id": f"secret-{i % 3}", "query": query, "time": at(100 * i)}
            for i, query in enumerate(queries, 1)
        ],
        "candidates": [
            {"search_id": "s1", "doc_id": "d0", "stage": "shown", "clicked": True},
            {"search_id": "s1", "doc_id": "d1", **shown},
            {"search_id": "s1", "doc_id": "d2", "stage": "ranked_not_shown"},
            {"search_id": "s1", "doc_id": "d3", "stage": "filtered_before_ranking"},
            # Shown in another search of the same query: the best place counts.
            {"search_id": "s2", "doc_id": "d1", "stage": "ranked_not_shown"},
            {"search_id": "s2", "doc_id": "d2", "stage": "filtered_before_ranking"},
            {"search_id": "s4", "doc_id": "d4", **shown},
            # Watched long, and so taken for clicked.
            {"search_id": "s4", "doc_id": "d5", "stage": "shown", "clicked": False, "watch_seconds": 30.0},
            {"search_id": "s5", "doc_id": "d9", "stage": "filtered_before_ranking"},
            {"search_id": "s6", "doc_id": "d6", **shown},
            # Of another query: d8 is still never a candidate for red lamp.
            {"search_id": "s7", "doc_id": "d8", **shown},
        ],
        "knowledge_documents": [
            {"query": query, "doc_id": f"k{i}", "title": f"written {i}", "text": "", "model": "m", "prompt_sha256": "0"}
            for i, query in enumerate(["vase", "clock", "never asked"])
        ],
    }


@pytest.fixture
def write_labels(tmp_path):
    def write(rows, *, name="labels", files=1):
        folder = tmp_path / name
        folder.mkdir()
        if files == 1:
            pq.write_table(pa.Table.from_pylist(rows, LABEL_SCHEMA), folder / "labels.parquet")
        else:
            (folder / "labels").mkdir()
            for part in range(files):
                table = pa.Table.from_pylist(rows[part::files], LABEL_SCHEMA)
                pq.write_table(table, folder / "labels" / f"{part}.parquet")
        return folder

    return write


@pytest.fixture
def opened(write_logs, write_labels, tables):
    with open_tables(write_labels(LABELS), write_logs(**tables), until=None, long_watch_seconds=30.0) as made:
        yield made
