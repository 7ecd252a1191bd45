import hashlib

import pyarrow as pa

from data.tables.truth import write_truth
from launch.evaluation.truth import read_hidden_relevant, read_true_grades

ROWS = [
    ("red lamp", "a", 3.0, True),
    ("red lamp", "b", 2.0, False),
    ("red lamp", "c", 3.0, False),
    ("all shown", "a", 3.0, True),
    ("not asked", "d", 3.0, False),
    ("blue cup", "e", 2.0, False),
]


def write(directory):
    names = ("query", "doc_id", "grade", "shown")
    write_truth(directory, pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in ROWS]))


def test_relevant_documents_that_no_search_showed(tmp_path):
    write(tmp_path)
    found = read_hidden_relevant(tmp_path, ["red lamp", "all shown", "blue cup", "unknown"])
    assert found == {"red lamp": {"b": 2.0, "c": 3.0}, "blue cup": {"e": 2.0}}


def test_without_a_truth_there_is_no_test_set(tmp_path):
    assert read_hidden_relevant(tmp_path, ["red lamp"]) is None
    assert read_true_grades(tmp_path, ["red lamp"]) is None


def test_true_grades_are_those_of_all_relevant_documents_shown_or_not(tmp_path):
    write(tmp_path)
    found = read_true_grades(tmp_path, ["red lamp", "all shown", "unknown"])
    assert found == {"red lamp": {"a": 3.0, "b": 2.0, "c": 3.0}, "all shown": {"a": 3.0}}


def test_of_many_queries_those_with_the_lowest_digest_are_taken(tmp_path):
    write(tmp_path)
    first = min(["red lamp", "blue cup"], key=lambda query: hashlib.sha256(query.encode()).digest())
    found = read_hidden_relevant(tmp_path, ["blue cup", "red lamp"], max_queries=1)
    assert found is not None
    assert list(found) == [first]
