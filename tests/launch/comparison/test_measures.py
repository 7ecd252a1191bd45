"""The values of a cell, by hand."""

from launch.comparison.measures import HIDDEN, MAIN, TRUE_NDCG, as_metrics, values_of
from tests.launch.comparison.evaluations import write_values

VALUES = [
    ("encoder", "ct", "all", "red shoe", "recall@100", 0.5),
    ("encoder", "ct", "seen", "red shoe", "recall@100", 0.1),
    ("encoder", "ct", "unseen", "red shoe", "recall@100", 0.0625),
    ("encoder", "judgements", "unseen", "red shoe", "ndcg@4", 0.2),
    ("encoder", "judgements", "all", "red shoe", "ndcg@4", 0.25),
    ("encoder", "judgements", "all", "red shoe", "recall@100", 0.75),
    ("encoder", "judgements", "all", "red shoe", "recall@10", 0.9),
    ("encoder", "judgements", "all", "red shoe", "judged@4", 0.5),
    ("encoder", "truth", "all", "red shoe", "ndcg@4", 0.625),
    ("encoder", "hidden_relevant", "all", "blue lamp", "recall@100", 0.375),
    ("encoder", "hidden_relevant", "all", "red shoe", "recall@100", 1.0),
    ("bm25", "ct", "all", "red shoe", "recall@100", 0.125),
]


def test_values_by_hand(tmp_path):
    evaluation = write_values(tmp_path, VALUES)
    assert values_of(evaluation, ranked_by="encoder") == {
        "ct_recall@100": {"red shoe": 0.5},
        "ct_recall@100_unseen_pairs": {"red shoe": 0.0625},
        "ndcg@4": {"red shoe": 0.25},
        "judged_recall@100": {"red shoe": 0.75},
        "judged@4": {"red shoe": 0.5},
        TRUE_NDCG: {"red shoe": 0.625},
        HIDDEN: {"blue lamp": 0.375, "red shoe": 1.0},
    }
    assert values_of(evaluation, ranked_by="bm25") == {"ct_recall@100": {"red shoe": 0.125}}


def test_the_main_table_has_the_three_tests_of_the_paper_and_three_that_theta_never_saw():
    assert list(MAIN) == ["ct_recall@100", "qr_recall@100", "ndcg@4", TRUE_NDCG, HIDDEN, "judged_recall@100"]


def test_values_are_kept_in_the_order_of_their_queries():
    found = as_metrics({"ndcg@4": {"b": 0.25, "a": 1.0}})["ndcg@4"]
    assert found.values == (1.0, 0.25)
    assert (found.mean, found.queries) == (0.625, 2)
    assert found.fingerprint == as_metrics({"ndcg@4": {"a": 0.0, "b": 0.0}})["ndcg@4"].fingerprint
    assert found.fingerprint != as_metrics({"ndcg@4": {"a": 0.0, "c": 0.0}})["ndcg@4"].fingerprint


def test_the_values_of_single_queries_are_kept_for_the_main_table_alone():
    """A cell of 10,000 queries then has a file that can be committed."""
    found = as_metrics({"ndcg@4": {"a": 0.5}, "ndcg@10": {"a": 0.25, "b": 0.75}})
    assert found["ndcg@4"].values == (0.5,)
    assert (found["ndcg@10"].values, found["ndcg@10"].mean, found["ndcg@10"].queries) == ((), 0.5, 2)
    assert as_metrics({"ndcg@10": {"a": 0.25}}, with_values=["ndcg@10"])["ndcg@10"].values == (0.25,)
