"""Paired differences of hand-made values, over all pairs and over those that the log does not have."""

import pytest

from crops_jax.retrieval.evaluation import Value
from launch.run_report.comparison import System, compare
from launch.run_report.headline import Figure

HEADLINE = (
    Figure(test="ct", metric="recall@10"),
    Figure(test="ct", metric="recall@10", pairs="unseen"),
    Figure(test="qr", metric="recall@10"),
)


def system(name, everything, unseen):
    """A system with one value for each query: of all pairs, and of the unseen pairs where the query has any."""
    parts = (("all", everything), ("unseen", unseen))
    values = [
        Value("ct", pairs, f"q{place}", "recall@10", value, True)
        for pairs, found in parts
        for place, value in enumerate(found)
    ]
    return System(name=name, figures={}, subsets={}, values=values)


def test_unseen_pairs_are_compared_on_their_own_queries():
    rows = compare([system("one", [1.0] * 8, [0.0, 0.5]), system("bm25", [0.5] * 8, [1.0, 1.0])], HEADLINE)
    assert [(row["label"], row["verdict"], row["queries"]) for row in rows] == [
        ("CT Recall@10", "better", 8),
        ("CT Recall@10, unseen pairs", "worse", 2),
    ]
    assert rows[0]["value"] == pytest.approx(0.5)
    # The differences of the two queries are -1 and -0.5.
    assert rows[1]["value"] == pytest.approx(-0.75)
    assert (rows[1]["low"], rows[1]["high"]) == (-1.0, -0.5)


def test_a_query_that_only_one_system_has_is_left_out():
    rows = compare([system("one", [1.0], [1.0, 1.0, 1.0]), system("bm25", [1.0], [0.0])], HEADLINE)
    assert [(row["label"], row["queries"], row["value"]) for row in rows] == [
        ("CT Recall@10", 1, 0.0),
        ("CT Recall@10, unseen pairs", 1, 1.0),
    ]
