"""Conflicts, evidence, configured levels."""

import json

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax.errors import InputError
from data.labels.assign_levels import assign_levels, parse_levels
from data.labels.files import write_labels
from data.perspectives.rows import SCHEMA


def rows_table(*rows):
    schema = pa.schema([(name, kind.to_pyarrow()) for name, kind in SCHEMA.items()])
    return pa.Table.from_pylist([{"query": "q", "doc_id": "d", **row} for row in rows], schema)


def labels(*rows, **options):
    found = assign_levels(ibis.memtable(rows_table(*rows)), **options).to_pyarrow().to_pylist()
    return sorted(found, key=lambda row: (row["query"], row["doc_id"]))


P0 = {"level": 4, "source": "search_log", "supporters": 3}
P1 = {"level": 5, "source": "query_level", "score": 0.8, "via_query": "q2", "gap_seconds": 12.25, "supporters": 1}
P2 = {"level": 4, "source": "system_level", "score": 0.8, "gap_seconds": 60.0, "supporters": 2}
P3 = {"level": 4, "source": "knowledge_level"}
SHOWN = {"level": 3, "source": "shown_not_clicked", "supporters": 9}


@pytest.mark.parametrize(
    ("rows", "level", "source", "score"),
    [
        ([P0, P1, SHOWN], 5, "query_level", 0.8),
        ([SHOWN, P0], 4, "search_log", None),
        ([P3, P2, P0], 4, "search_log", None),
        ([P3, P2], 4, "system_level", 0.8),
        ([P3, SHOWN], 4, "knowledge_level", None),
        ([SHOWN, {"level": 2, "source": "ranked_not_shown"}], 3, "shown_not_clicked", None),
    ],
)
def test_the_highest_level_wins_then_the_order_of_sources(rows, level, source, score):
    for order in (rows, rows[::-1]):
        (label,) = labels(*order)
        assert (label["level"], label["source"], label["score"]) == (level, source, score)


def test_every_row_stays_in_the_evidence_sorted():
    (label,) = labels(SHOWN, P1, P0)
    assert json.loads(label["evidence"]) == [
        {"source": "query_level", "level": 5, "score": 0.8, "via_query": "q2", "gap_seconds": 12.25, "supporters": 1},
        {"source": "search_log", "level": 4, "score": None, "via_query": None, "gap_seconds": None, "supporters": 3},
        {
            "source": "shown_not_clicked",
            "level": 3,
            "score": None,
            "via_query": None,
            "gap_seconds": None,
            "supporters": 9,
        },
    ]
    assert label["evidence"] == labels(P0, SHOWN, P1)[0]["evidence"]


@pytest.mark.parametrize("query", ['say "hi"', "back\\slash", "été 苹果 😀", "bell\x07", "a'b"])
def test_evidence_is_json_whatever_was_typed(query):
    (label,) = labels({**P1, "via_query": query})
    assert json.loads(label["evidence"])[0]["via_query"] == query


def test_levels_are_configuration():
    (label,) = labels(P0, P1, levels=parse_levels("query_level_at_4"))
    assert (label["level"], label["source"]) == (4, "search_log")
    (label,) = labels(P1, P2, levels={"query_level": 4})
    assert (label["level"], label["source"]) == (4, "query_level")
    assert [entry["level"] for entry in json.loads(label["evidence"])] == [4, 4]
    binary = labels(P1, {**SHOWN, "doc_id": "e"}, levels=parse_levels("binary"))
    assert [label["level"] for label in binary] == [4, 0]


@pytest.mark.parametrize(
    "text", ["nonsense", "query_level=6", "query_level", "shown=3", "query_level=4,", "query_level=4,query_level=5"]
)
def test_unknown_levels_are_refused(text):
    with pytest.raises(InputError, match="--levels"):
        parse_levels(text)


def test_the_file_is_sorted_and_its_bytes_do_not_depend_on_the_rows_order(tmp_path):
    rows = [{**P0, "query": f"q{i % 7}", "doc_id": f"d{i}"} for i in range(50)] + [
        {**SHOWN, "query": f"q{i % 7}", "doc_id": f"d{i}"} for i in range(0, 50, 3)
    ]
    written = []
    for order in (rows, rows[::-1]):
        folder = tmp_path / str(len(written))
        folder.mkdir()
        connection = ibis.duckdb.connect()
        table = connection.create_table("rows", rows_table(*order))
        write_labels(connection, assign_levels(table), folder)
        written.append((folder / "labels.parquet").read_bytes())
    assert written[0] == written[1]
    table = pq.read_table(tmp_path / "0" / "labels.parquet")
    keys = list(zip(table["query"].to_pylist(), table["doc_id"].to_pylist(), strict=True))
    assert keys == sorted(set(keys))
    assert len(keys) == 50
