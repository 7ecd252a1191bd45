"""The head of data.report: precision and novelty of each source, from numbers made by hand."""

from data.mining_report.figures import Gain
from data.mining_report.summary import SummaryRow, summary_of

GAINS = {
    "query_level": Gain(2, 4, 4, 1, (1, 0, 1, 1, 1)),
    "search_log": Gain(3, 10, 9, 5, (10, 0, 0, 0, 0)),
}
BEYOND = Gain(2, 8, 8, 1, (0, 2, 2, 2, 2))
BY_JUDGES = {
    "sources": {
        "query_level": {
            "before": {"judged": 9, "value": 0.5, "low": 0.4, "high": 0.6},
            "after": {"judged": 4, "value": 0.75, "low": 0.5, "high": 1.0},
        },
        "search_log": {"before": {"judged": 8, "value": 0.625, "low": 0.5, "high": 0.75}},
        "knowledge_level": {"before": {"judged": 0}},
    }
}


def test_judged_precision_is_that_after_theta_where_theta_decided():
    summary = summary_of(GAINS, BEYOND, BY_JUDGES, None)
    assert summary.rows == [
        SummaryRow("query_level", 0.75, 0.5, 1.0, 4, 0.75, 4),
        SummaryRow("search_log", 0.625, 0.5, 0.75, 8, 0.0, 10),
    ]
    assert summary.intervals
    assert summary.sentences[0] == (
        "Of the judged positives, these shares are relevant: 75.0 % of query level, beside 62.5 % of the search log."
    )
    assert summary.sentences[1].startswith(
        "Of the positives that the search log does not have, 75.0 % were never shown for their query in any search, "
        "and 25.0 % were not even a candidate."
    )
    assert summary.sentences[1].endswith("They are 6 of 8, for 2 queries.")


def test_the_truth_of_a_generated_world_goes_before_judgements():
    truth = {"query_level": {"pairs": 4, "relevant": 3, "value": 0.75, "low": 0.5, "high": 1.0, "queries": 2}}
    summary = summary_of(GAINS, BEYOND, BY_JUDGES, truth)
    assert [(row.precision, row.low, row.known) for row in summary.rows] == [(0.75, 0.5, 4), (None, None, 0)]
    assert summary.intervals
    assert summary.sentences[0] == (
        "Of the positives whose grade the truth of the generated world knows, these shares are relevant: 75.0 % of "
        "query level."
    )


def test_what_is_not_known_is_said():
    unseen = {"query_level": Gain(2, 4, 4, 1, None)}
    summary = summary_of(unseen, Gain(0, 0, 0, 0, None), None, None)
    assert summary.rows == [SummaryRow("query_level", None, None, None, 0, None, 4)]
    assert summary.sentences == [
        "It is not known how many of the positives are relevant: no judgement and no truth tells."
    ]
    assert summary_of({}, Gain(0, 0, 0, 0, None), None, None).sentences == []
