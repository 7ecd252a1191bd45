from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from crops_jax import artifacts
from crops_jax.hashing import sha256_hashes
from crops_jax.retrieval.metrics import ndcg_at_k
from data.tables import open_logs, write_table
from launch.evaluation.dev_queries import read_dev_queries

DOC_IDS = [f"d{row}" for row in range(6)]


def write_split(path, *, judged=(), clicked=(), test_clicks=()):
    path.mkdir(exist_ok=True)
    time = datetime(2026, 1, 1, tzinfo=UTC)
    searched = sorted({query for query, _ in clicked} | {"nobody clicks"})
    tables = {
        "documents": [{"doc_id": doc_id, "title": doc_id} for doc_id in DOC_IDS],
        "searches": [
            {"search_id": f"s{row}", "user_id": "u", "query": query, "time": time} for row, query in enumerate(searched)
        ],
        "candidates": [
            {"search_id": f"s{searched.index(query)}", "doc_id": doc_id, "stage": "shown", "clicked": True}
            for query, doc_id in clicked
        ]
        or [{"search_id": "s0", "doc_id": "d0", "stage": "shown", "clicked": False}],
        "test_clicks": [{"query": query, "doc_id": doc_id} for query, doc_id in test_clicks],
        "judgements": [dict(zip(("query", "doc_id", "grade", "split"), row, strict=True)) for row in judged],
    }
    for name, rows in tables.items():
        if rows:
            write_table(path, name, pa.Table.from_pylist(rows))
    return open_logs(path)


def read(logs, tmp_path, **changed):
    return read_dev_queries(logs, DOC_IDS, **{"run": str(tmp_path / "no run"), "limit": 100, **changed})


def test_judgements_of_split_dev_come_first_and_test_queries_are_no_dev_queries(tmp_path):
    judged = [
        ("a", "d0", 2.0, "dev"),
        ("a", "d1", 0.0, "dev"),
        ("a", "gone", 1.0, "dev"),
        ("only unknown", "gone", 1.0, "dev"),
        ("not relevant", "d0", 0.0, "dev"),
        ("clicked later", "d0", 1.0, "dev"),
        ("judged for both", "d0", 1.0, "dev"),
        ("judged for both", "d1", 0.0, "test"),
        ("b", "d3", 1.0, "train"),
    ]
    logs = write_split(tmp_path / "split", judged=judged, test_clicks=[("clicked later", "d5")])
    dev = read(logs, tmp_path)
    assert dev.grades == {"a": {"d0": 2.0, "d1": 0.0}}
    assert (dev.metric, dev.source, dev.absent) == ("ndcg@10", "judgements of split dev", "")
    assert read(logs, tmp_path, relevant_grade=3.0).grades == {}


def test_the_mean_is_that_of_the_metric(tmp_path):
    judged = [("a", "d0", 2.0, "dev"), ("a", "d1", 1.0, "dev"), ("b", "d2", 1.0, "dev")]
    dev = read(write_split(tmp_path / "split", judged=judged), tmp_path)
    found = {"a": [1, 0, -1], "b": [0, 5, 2]}
    indices = np.array([found[query] for query in dev.queries])
    wanted = (
        ndcg_at_k(["d1", "d0"], {"d0": 2.0, "d1": 1.0}, k=10) + ndcg_at_k(["d0", "d5", "d2"], {"d2": 1}, k=10)
    ) / 2
    assert dev.mean(indices, DOC_IDS) == pytest.approx(wanted)


def make(directory, **manifest):
    directory.mkdir()
    artifacts.write_manifest(directory, artifacts.new_manifest(**manifest))


def queries_by_side(fraction, count):
    """Queries of the log that belong to the dev share by their hash, and others."""
    names = [f"query {number}" for number in range(200)]
    inside = sha256_hashes(names) < np.uint64(int(fraction * 2.0**64))
    dev = [name for name, own in zip(names, inside, strict=True) if own]
    return dev[:count], [name for name, own in zip(names, inside, strict=True) if not own][:count]


def test_without_judgements_they_are_the_clicked_queries_of_the_dev_share(tmp_path):
    (first, second, tested), others = queries_by_side(0.25, 3)
    clicked = [(first.upper(), "d1"), (f" {first}", "d2"), (second, "d3"), (tested, "d4"), *((q, "d0") for q in others)]
    logs = write_split(tmp_path / "split", clicked=clicked, test_clicks=[(tested, "d5")])
    records, run = tmp_path / "records", tmp_path / "run"
    make(records, kind="records", program="data.write_records", arguments={"dev_fraction": 0.25}, inputs={})
    # The records of the run that this one starts from have another dev share.
    warm = {"warm records": {"kind": "records", "arguments": {"dev_fraction": 0.9}, "inputs": {}}}
    warm["warm run"] = {"kind": "run", "arguments": {}, "inputs": {"records": tmp_path / "warm records"}}
    for name, manifest in warm.items():
        make(tmp_path / name, program="p", **manifest)
    inputs = {"initial_run": tmp_path / "warm run", "records": records}
    make(run, kind="run", program="launch.train", arguments={}, inputs=inputs)
    dev = read(logs, tmp_path, run=str(run))
    assert dev.grades == {first: {"d1": 1.0, "d2": 1.0}, second: {"d3": 1.0}}
    assert (dev.metric, dev.source) == ("recall@100", "clicks of the log for dev queries")
    assert len(read(logs, tmp_path, run=str(run), limit=1).grades) == 1
    make(tmp_path / "folder", kind="encoder", program="launch.export", arguments={}, inputs={"run": run})
    assert read(logs, tmp_path, run=str(tmp_path / "folder")).grades == dev.grades


def test_the_default_dev_share_is_that_of_the_records(tmp_path):
    (inside,), (outside,) = queries_by_side(0.05, 1)
    logs = write_split(tmp_path / "split", clicked=[(inside, "d1"), (outside, "d2")])
    assert read(logs, tmp_path).queries == [inside]


def test_the_reason_is_given_where_there_are_none(tmp_path):
    logs = write_split(tmp_path / "split", judged=[("a", "d0", 1.0, "train")])
    assert "no judgement has split = dev" in read(logs, tmp_path).absent
    assert "(0.05)" in read(logs, tmp_path).absent
    assert read(logs, tmp_path, limit=0).absent == "--dev-queries is 0"


def test_without_clicks_they_are_the_judged_queries_of_the_dev_share(tmp_path):
    (first, tested), others = queries_by_side(0.05, 2)
    judged = [(query, "d1", 2.0, "train") for query in (first, *others)]
    judged += [(first, "d2", 0.0, "train"), (tested, "d1", 1.0, "train"), (tested, "d2", 1.0, "test")]
    dev = read(write_split(tmp_path / "split", judged=judged), tmp_path)
    assert dev.grades == {first: {"d1": 2.0, "d2": 0.0}}
    assert (dev.metric, dev.source) == ("ndcg@10", "judgements of split train for dev queries")
    assert read(write_split(tmp_path / "split", judged=judged), tmp_path, relevant_grade=3.0).absent
