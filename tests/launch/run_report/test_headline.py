"""The rule that chooses the headline figures, worked out by hand at its limits."""

import pytest

from launch.run_report.headline import ALWAYS, Figure, click_depth, headline, label_of


def tables(judged, hidden=None):
    """The Recall@100 of one system on the judged set, and on hidden relevant documents where they are given."""
    found = {"judgements": {"recall@100": {"value": judged, "queries": 9}}}
    return found if hidden is None else {**found, "hidden_relevant": {"recall@100": {"value": hidden, "queries": 9}}}


@pytest.mark.parametrize(("documents", "k"), [(437, 10), (3_500, 10), (19_999, 10), (20_000, 100), (5_000_000, 100)])
def test_k_is_100_where_a_random_order_finds_at_most_half_a_percent(documents, k):
    assert click_depth(documents) == k
    assert (100 / documents <= 0.005) == (k == 100)


def test_judged_recall_ndcg_and_unseen_pairs_come_first():
    assert [figure.label for figure in headline(3_500, [tables(0.8, 0.4)])] == [
        "Judged Recall@100",
        "NDCG@4",
        "CT Recall@10, unseen pairs",
        "CT Recall@10",
        "QR Recall@10",
        "Hidden relevant Recall@100",
    ]
    assert [figure.label for figure in headline(20_000, [tables(0.8)])] == [
        "Judged Recall@100",
        "NDCG@4",
        "CT Recall@100, unseen pairs",
        "CT Recall@100",
        "QR Recall@100",
    ]


@pytest.mark.parametrize(
    ("judged", "label"),
    [
        ((0.99, 0.951), "Judged Recall@10"),
        ((0.99, 0.95), "Judged Recall@100"),
        ((0.99, None), "Judged Recall@10"),
        ((), "Judged Recall@100"),
    ],
)
def test_judged_recall_is_that_at_10_only_where_every_system_is_near_1_at_100(judged, label):
    assert headline(100, [tables(value) for value in judged])[0].label == label


def test_hidden_relevant_documents_have_their_own_k():
    labels = [figure.label for figure in headline(100, [tables(0.5, 0.96), tables(0.5, 0.97)])]
    assert labels[0] == "Judged Recall@100"
    assert labels[-1] == "Hidden relevant Recall@10"


def test_true_grades_come_after_the_judgements_whose_gaps_they_have_not():
    figures = headline(100, [tables(0.5), {**tables(0.6), "truth": {"ndcg@4": {"value": 0.7, "queries": 9}}}])
    assert [figure.label for figure in figures][:3] == ["Judged Recall@100", "NDCG@4", "True NDCG@4"]
    assert "judged or not" in figures[2].meaning
    assert label_of("judgements", "judged@4") == "Judged@4"


def test_outcome_lines_keep_the_labels_that_programs_read():
    assert [figure.label for figure in ALWAYS] == ["CT Recall@100", "QR Recall@100", "NDCG@4"]


def test_a_figure_of_unseen_pairs_is_taken_from_its_subset():
    seen, unseen = {"value": 0.9, "queries": 5}, {"value": 0.4, "queries": 3}
    figures, subsets = {"ct": {"recall@10": seen}}, {"unseen_pairs": {"ct": {"recall@10": unseen}}}
    assert Figure(test="ct", metric="recall@10").of(figures, subsets) == seen
    assert Figure(test="ct", metric="recall@10", pairs="unseen").of(figures, subsets) == unseen
    assert Figure(test="ct", metric="recall@10", pairs="unseen").of(figures, {}) is None
    assert Figure(test="qr", metric="recall@10").of(figures, subsets) is None
    empty = {"ct": {"recall@10": {"value": None, "queries": 0}}}
    assert Figure(test="ct", metric="recall@10").of(empty, {}) is None


def test_the_meaning_says_how_many_documents_count_and_which_pairs():
    assert Figure(test="ct", metric="recall@10", pairs="unseen").meaning == (
        "the share of the documents clicked for a query in the held-out part of the log (CT is the click test) that "
        "the system ranks among its first 10, without the pairs that the log already has as clicks."
    )
    assert "first 4 documents" in Figure(test="judgements", metric="ndcg@4").meaning
