"""The values of a cell, by hand."""

from launch.comparison.measures import HIDDEN, MAIN, as_lists, values_of
from tests.launch.comparison.evaluations import write_values

VALUES = [
    ("encoder", "ct", "all", "red shoe", "recall@100", 0.5),
    ("encoder", "ct", "seen", "red shoe", "recall@100", 0.1),
    ("encoder", "judgements", "all", "red shoe", "ndcg@4", 0.25),
    ("encoder", "judgements", "all", "red shoe", "recall@100", 0.75),
    ("encoder", "judgements", "all", "red shoe", "recall@10", 0.9),
    ("encoder", "hidden_relevant", "all", "blue lamp", "recall@100", 0.375),
    ("encoder", "hidden_relevant", "all", "red shoe", "recall@100", 1.0),
    ("bm25", "ct", "all", "red shoe", "recall@100", 0.125),
]


def test_values_by_hand(tmp_path):
    evaluation = write_values(tmp_path, VALUES)
    assert values_of(evaluation, ranked_by="encoder") == {
        "ct_recall@100": {"red shoe": 0.5},
        "ndcg@4": {"red shoe": 0.25},
        "judged_recall@100": {"red shoe": 0.75},
        HIDDEN: {"blue lamp": 0.375, "red shoe": 1.0},
    }
    assert values_of(evaluation, ranked_by="bm25") == {"ct_recall@100": {"red shoe": 0.125}}


def test_the_main_table_has_the_three_tests_of_the_paper_and_two_that_theta_never_saw():
    assert list(MAIN) == ["ct_recall@100", "qr_recall@100", "ndcg@4", HIDDEN, "judged_recall@100"]


def test_values_are_kept_in_the_order_of_their_queries():
    queries, lists = as_lists({"ndcg@4": {"b": 1 / 3, "a": 1.0}})
    assert lists == {"ndcg@4": [1.0, 0.333333]}
    assert queries == as_lists({"ndcg@4": {"a": 0.0, "b": 0.0}})[0]
    assert queries != as_lists({"ndcg@4": {"a": 0.0, "c": 0.0}})[0]
