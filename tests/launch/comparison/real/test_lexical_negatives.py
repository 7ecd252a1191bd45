"""Negatives from the ranking of BM25, against the ranking itself."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax.retrieval.bm25 import Bm25
from data.labels.assign_levels import LABEL_SCHEMA
from data.labels.table import open_labels
from data.tables import write_table
from launch.comparison.real.lexical_negatives import add_lexical_negatives

# The longer the document, the lower its score: the rank of document d007 for "lamp" is 8.
TITLES = ["lamp" + " word" * length for length in range(130)]
DOC_IDS = [f"d{number:03d}" for number in range(130)]


def write_label_table(folder, rows):
    folder.mkdir(exist_ok=True)
    evidence = json.dumps([{"source": "judgements"}])
    full = [
        {"query": query, "doc_id": doc_id, "level": level, "source": "judgements", "score": None, "evidence": evidence}
        for query, doc_id, level in rows
    ]
    pq.write_table(pa.Table.from_pylist(full, schema=LABEL_SCHEMA), folder / "labels.parquet")
    return folder


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    write_table(folder, "documents", pa.table({"doc_id": DOC_IDS, "title": TITLES}))
    write_table(folder, "judgements", pa.table({"query": ["lamp"], "doc_id": ["d000"], "grade": [1.0]}))
    return folder


def rows_of(folder):
    with open_labels(folder) as (connection, _):
        return connection.sql("SELECT query, doc_id, level, source, score FROM labels").fetchall()


def test_negatives_are_unlabelled_documents_of_ranks_20_to_100(tmp_path, logs):
    labelled = [("lamp", "d000", 5), *(("lamp", f"d{number:03d}", 1) for number in range(30, 60)), ("none", "d001", 4)]
    labels = write_label_table(tmp_path / "labels", labelled)
    add_lexical_negatives(labels, logs, tmp_path / "out", count=7)
    found = rows_of(tmp_path / "out")
    kept = [(query, doc_id, level) for query, doc_id, level, source, _ in found if source == "judgements"]
    assert sorted(kept) == sorted(labelled)
    added = {(query, doc_id, level, score) for query, doc_id, level, source, score in found if source == "model_mined"}
    _, ranked = Bm25(TITLES).search(["lamp"], 100)
    allowed = {DOC_IDS[place] for place in ranked[0][19:]} - {doc_id for _, doc_id, _ in labelled}
    assert len(added) == 7
    # No document has the word "none", so that this query gets no negative.
    assert all(query == "lamp" and doc_id in allowed and level == 0 for query, doc_id, level, _ in added)
    assert {score for *_, score in added} == {None}


def test_all_allowed_documents_are_taken_if_there_are_too_few(tmp_path, logs):
    labels = write_label_table(tmp_path / "labels", [("lamp", "d000", 4), ("lamp", "d050", 4)])
    add_lexical_negatives(labels, logs, tmp_path / "out", count=500)
    added = {doc_id for _, doc_id, level, *_ in rows_of(tmp_path / "out") if level == 0}
    assert added == set(DOC_IDS[19:100]) - {"d050"}


def test_equal_inputs_make_nothing_again_and_others_do(tmp_path, logs):
    labels = write_label_table(tmp_path / "labels", [("lamp", "d000", 4)])
    add_lexical_negatives(labels, logs, tmp_path / "out", count=2)
    file = tmp_path / "out" / "labels.parquet"
    first = (file.read_bytes(), file.stat().st_mtime_ns)
    add_lexical_negatives(labels, logs, tmp_path / "out", count=2)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == first
    add_lexical_negatives(labels, logs, tmp_path / "out", count=3)
    assert len(rows_of(tmp_path / "out")) == 4
