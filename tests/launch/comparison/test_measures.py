"""The values of a cell, and hidden relevant recall against a table made by hand."""

import datetime

import pyarrow as pa
import pytest

from data.tables import write_table
from launch.comparison.measures import HIDDEN, as_lists, shown_pairs, values_of
from tests.launch.comparison.evaluations import write_files

VALUES = [
    ("encoder", "ct", "all", "red shoe", "recall@100", 0.5),
    ("encoder", "ct", "seen", "red shoe", "recall@100", 0.1),
    ("encoder", "judgements", "all", "red shoe", "ndcg@4", 0.25),
    ("encoder", "judgements", "all", "red shoe", "recall@100", 0.75),
    ("encoder", "judgements", "all", "red shoe", "recall@10", 0.9),
    ("bm25", "ct", "all", "red shoe", "recall@100", 0.125),
]
RELEVANT = [
    ("red shoe", "shown", 1, 1),
    ("red shoe", "found", 100, 101),
    ("red shoe", "deep", 101, 3),
    ("red shoe", "lost", None, None),
    ("blue lamp", "shown", 7, None),
]
SHOWN = frozenset({("red shoe", "shown"), ("blue lamp", "shown")})


def test_values_by_hand(tmp_path):
    """Of the three hidden documents of "red shoe" the encoder has one among its first 100; "blue lamp" has none."""
    evaluation = write_files(tmp_path, values=VALUES, relevant=RELEVANT)
    assert values_of(evaluation, ranked_by="encoder", shown=lambda: SHOWN) == {
        "ct_recall@100": {"red shoe": 0.5},
        "ndcg@4": {"red shoe": 0.25},
        "judged_recall@100": {"red shoe": 0.75},
        HIDDEN: {"red shoe": pytest.approx(1 / 3)},
    }
    of_bm25 = values_of(evaluation, ranked_by="bm25", shown=lambda: SHOWN)
    assert of_bm25 == {"ct_recall@100": {"red shoe": 0.125}, HIDDEN: {"red shoe": pytest.approx(1 / 3)}}


def test_without_a_hidden_document_there_is_no_such_metric(tmp_path):
    evaluation = write_files(tmp_path, values=VALUES, relevant=[("blue lamp", "shown", 7, None)])
    assert HIDDEN not in values_of(evaluation, ranked_by="encoder", shown=lambda: SHOWN)


def test_the_shown_pairs_are_those_of_all_searches_of_judged_queries(tmp_path):
    time = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    tables = {
        "documents": {"doc_id": ["a", "b", "c"], "title": ["a", "b", "c"]},
        "searches": {
            "search_id": ["1", "2", "3"],
            "user_id": ["u", "u", "u"],
            "query": ["Red  Shoe", "red shoe", "blue lamp"],
            "time": [time] * 3,
        },
        "candidates": {
            "search_id": ["1", "1", "2", "3"],
            "doc_id": ["a", "b", "b", "c"],
            "stage": ["shown", "ranked_not_shown", "filtered_before_ranking", "shown"],
            "clicked": [False, None, None, True],
        },
        "judgements": {"query": ["red shoe"], "doc_id": ["a"], "grade": [1.0], "split": ["test"]},
    }
    for name, columns in tables.items():
        write_table(tmp_path, name, pa.table(columns))
    assert shown_pairs(tmp_path) == {("red shoe", "a")}
    (tmp_path / "judgements.parquet").unlink()
    assert shown_pairs(tmp_path) == frozenset()


def test_values_are_kept_in_the_order_of_their_queries():
    queries, lists = as_lists({"ndcg@4": {"b": 1 / 3, "a": 1.0}})
    assert lists == {"ndcg@4": [1.0, 0.333333]}
    assert queries == as_lists({"ndcg@4": {"a": 0.0, "b": 0.0}})[0]
    assert queries != as_lists({"ndcg@4": {"a": 0.0, "c": 0.0}})[0]
