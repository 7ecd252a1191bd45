"""No id of a user or a search in anything that mining and the steps after it write."""

import gzip
import json

import pyarrow.parquet as pq
import pytest

from data.mine import mine
from data.write_records import WriteRecordsArguments, write_records
from tests.mining_arguments import mine_arguments

USERS = [f"person-{name}@example.org" for name in ("ann", "bob", "cat", "dan")]
MARKS = ("person-", "@example.org", "visit-")
"""What ids of users and searches hold, and nothing else in the logs does."""


@pytest.fixture
def logs(write_logs, at):
    """Three users go from "red lamp" to "red lamps" and click, are shown a document more and watch the feed; one goes
    from "red lamp" to a query that nobody else typed, and one types a rare query of his own."""
    searches, candidates, views = [], [], []

    def search(user, query, seconds, doc_id):
        visit = f"visit-{len(searches)}"
        searches.append({"search_id": visit, "user_id": USERS[user], "query": query, "time": at(seconds)})
        candidates.append({"search_id": visit, "doc_id": doc_id, "stage": "shown", "clicked": True})
        candidates.append({"search_id": visit, "doc_id": "d9", "stage": "shown", "clicked": False})

    for user in range(3):
        search(user, "red lamp", 1000 * user, "d0")
        search(user, "red lamps", 1000 * user + 20, "d1")
        views.append({"user_id": USERS[user], "doc_id": "d2", "time": at(1000 * user)})
    search(3, "red lamp", 9000, "d0")
    search(3, "red lamp for flat 7", 9030, "d1")
    search(3, "lawyer for my divorce", 20_000, "d3")
    documents = [{"doc_id": f"d{i}", "title": f"red lamp number {i}"} for i in range(10)]
    written = {"title": "a red lamp", "text": "", "model": "m", "prompt_sha256": "0" * 64}
    return write_logs(
        documents=documents,
        searches=searches,
        candidates=candidates,
        feed_views=views,
        knowledge_documents=[
            {"query": "red lamp", "doc_id": "k1", **written},
            {"query": "lawyer for my divorce", "doc_id": "k2", **written},
        ],
    )


def every_byte(directory):
    """All that lies in a directory as text: bytes as they are, and what compressed files hold."""
    told = []
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        content = file.read_bytes()
        told += [file.name, content.decode("latin-1")]
        if content[:4] == b"PAR1":
            table = pq.read_table(file)
            told += [str(table.to_pylist()), str(table.schema.metadata)]
        if content[:2] == b"\x1f\x8b":
            told.append(gzip.decompress(content).decode("latin-1"))
    return "\n".join(told)


def labels_of(directory):
    rows = pq.read_table(directory / "labels.parquet").to_pylist()
    return {(row["query"], row["doc_id"]): row for row in rows}


def test_no_id_of_a_user_or_search_in_any_written_byte(logs, tmp_path):
    outcomes = [
        mine(mine_arguments(logs=str(logs), output=str(tmp_path / "whole"), alpha=0.0)),
        mine(
            mine_arguments(
                logs=str(logs),
                output=str(tmp_path / "labels"),
                day="2024-05-31",
                state=str(tmp_path / "state"),
                alpha=0.0,
            )
        ),
        write_records(
            WriteRecordsArguments(
                labels=str(tmp_path / "whole"), logs=str(logs), output=str(tmp_path / "records"), num_shards=1
            )
        ),
    ]
    for name in ("whole", "labels", "state", "records"):
        told = every_byte(tmp_path / name)
        assert "red lamp" in told or name == "records"
        assert [mark for mark in MARKS if mark in told] == [], name
    assert not [mark for mark in MARKS if mark in json.dumps(outcomes, default=str)]
    # The search itself finds what is there.
    assert "person-ann" in every_byte(logs)


@pytest.mark.parametrize("by_day", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_below_the_threshold_neither_pairs_nor_texts_of_queries_are_told(logs, tmp_path, by_day):
    more = {"day": "2024-05-31", "state": str(tmp_path / "state")} if by_day else {}
    outcome = mine(mine_arguments(logs=str(logs), output=str(tmp_path / "labels"), alpha=0.0, min_supporters=3, **more))
    labels = labels_of(tmp_path / "labels")
    assert {key: (row["level"], row["source"]) for key, row in labels.items()} == {
        ("red lamp", "d0"): (4, "search_log"),
        ("red lamp", "d1"): (5, "query_level"),
        ("red lamp", "d2"): (4, "system_level"),
        ("red lamp", "d9"): (3, "shown_not_clicked"),
        ("red lamp", "k1"): (4, "knowledge_level"),
        ("red lamps", "d1"): (4, "search_log"),
        ("red lamps", "d2"): (4, "system_level"),
        ("red lamps", "d9"): (3, "shown_not_clicked"),
    }
    (chain,) = json.loads(labels["red lamp", "d1"]["evidence"])
    assert (chain["via_query"], chain["supporters"], chain["gap_seconds"]) == ("red lamps", 3, 20.0)
    told = every_byte(tmp_path / "labels")
    assert "divorce" not in told
    assert "flat 7" not in told
    assert outcome["support"] == {
        "min_supporters": 3,
        "left_out": {
            "query_level": 0,
            "query_level_evidence": 1,
            "system_level": 0,
            # "red lamp for flat 7" and "lawyer for my divorce": a click and what was shown beside it.
            "search_log": 2,
            "negatives": 2,
            "knowledge_level": 1,
            "queries": 2,
        },
    }


def test_by_default_one_user_is_enough(logs, tmp_path):
    outcome = mine(mine_arguments(logs=str(logs), output=str(tmp_path / "labels"), alpha=0.0))
    labels = labels_of(tmp_path / "labels")
    assert ("lawyer for my divorce", "d3") in labels
    assert ("lawyer for my divorce", "k2") in labels
    assert outcome["support"] == {"min_supporters": 1, "left_out": {}}
