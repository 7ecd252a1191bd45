"""What the page says about the best encoder against BM25, from figures made by hand."""

from pathlib import Path

import pytest

from launch.run_report.comparison import System
from launch.run_report.conclusion import against_bm25, shared_runs, shared_sentences
from launch.run_report.headline import Figure
from launch.run_report.sources import Evaluation, Labels, Run

HEADLINE = (
    Figure(test="judgements", metric="recall@100"),
    Figure(test="judgements", metric="ndcg@4"),
    Figure(test="ct", metric="recall@10"),
)


def system(name, recall, ndcg):
    values = {"recall@100": recall, "ndcg@4": ndcg}
    figures = {metric: {"value": value, "low": 0.0, "high": 1.0, "queries": 100} for metric, value in values.items()}
    return System(name=name, figures={"judgements": figures}, subsets={}, values=[])


def row(name, label, verdict, value, low, high):
    numbers = {"value": value, "low": low, "high": high, "queries": 100}
    return {"order": 0, "system": name, "against": "bm25", "label": label, "verdict": verdict, **numbers}


SYSTEMS = [system("log", 0.7, 0.6), system("cross", 0.9, 0.5), system("bm25", 0.8, 0.65)]
ROWS = [
    row("log", "Judged Recall@100", "worse", -0.1, -0.2, -0.05),
    row("log", "NDCG@4", "no difference shown", -0.05, -0.12, 0.02),
    row("cross", "Judged Recall@100", "better", 0.1, 0.05, 0.15),
    row("cross", "NDCG@4", "worse", -0.15, -0.2, -0.1),
]


def labels(name, fingerprint="a"):
    counts = {5: 2, 4: 3, 3: 1000, 2: 0, 1: 0, 0: 0}
    return Labels(
        path=Path(name), name=name, levels=counts, sources={}, alpha_sweep=None, mined={}, fingerprint=fingerprint
    )


def run(name, step):
    return Run(path=Path(name), name=name, lines=[], goodput=[], status={"step": step}, version="0.1.0")


def evaluation(name, fingerprint):
    inputs = {} if fingerprint is None else {"run": {"fingerprint": fingerprint}}
    return Evaluation(path=Path(name), name=name, metrics={}, manifest={"inputs": inputs})


def test_the_best_encoder_of_each_figure_is_named_with_its_verdict_and_the_reason_that_is_measured():
    assert against_bm25(SYSTEMS, HEADLINE, ROWS, labels=[labels("log")], runs=[run("log", 1500)]) == [
        "Judged Recall@100: the best encoder, cross (0.900), is better than BM25 (0.800). The mean difference is "
        "+0.100 (+0.050 to +0.150) over 100 queries.",
        "NDCG@4: the best encoder, log (0.600), is not shown to differ from BM25 (0.650). The interval of the mean "
        "difference contains 0: -0.050 (-0.120 to +0.020) over 100 queries. So few queries do not show a difference "
        "below about 0.070.",
        "log learnt from 1,005 labels, of which 5 are positives, in 1,500 steps. This page does not measure whether "
        "more labels or more steps would change the verdict.",
    ]


@pytest.mark.parametrize(
    ("verdict", "order"), [("worse", "is worse"), ("no difference shown", "is not shown to be better")]
)
def test_an_encoder_that_finds_more_but_orders_it_no_better_is_described_so(verdict, order):
    rows = [ROWS[2], row("cross", "NDCG@4", verdict, -0.15, -0.2, 0.1)]
    sentences = against_bm25([SYSTEMS[1], SYSTEMS[2]], HEADLINE, rows)
    assert sentences[-1] == (
        f"cross finds more of the relevant documents than BM25, but the order of its first four {order}."
    )


def test_nothing_is_explained_where_bm25_is_beaten():
    rows = [ROWS[2], row("cross", "NDCG@4", "better", 0.1, 0.05, 0.2)]
    sentences = against_bm25([SYSTEMS[1], SYSTEMS[2]], HEADLINE, rows, labels=[labels("cross")], runs=[run("cross", 3)])
    assert [sentence.partition(":")[0] for sentence in sentences] == ["Judged Recall@100", "NDCG@4"]
    assert all("is better than BM25" in sentence for sentence in sentences)


def test_an_arm_without_a_run_of_its_own_learnt_in_the_steps_of_the_one_that_it_shares():
    rows = [ROWS[2], ROWS[3]]
    found = {"labels": [labels("cross")], "runs": [run("log", 7)]}
    with_run = against_bm25([SYSTEMS[1], SYSTEMS[2]], HEADLINE, rows, **found, shared={"cross": "log"})
    assert "of which 5 are positives, in 7 steps." in with_run[-1]
    without = against_bm25([SYSTEMS[1], SYSTEMS[2]], HEADLINE, rows, **found)
    assert "of which 5 are positives. This page" in without[-1]


def test_without_judgements_nothing_is_concluded():
    bare = [System(name=name, figures={}, subsets={}, values=[]) for name in ("log", "bm25")]
    assert against_bm25(bare, HEADLINE, []) == []


def test_evaluations_of_one_run_are_found_by_its_fingerprint():
    found = [evaluation("log", "x"), evaluation("untrained", None), evaluation("hub", None), evaluation("cross", "x")]
    assert shared_runs(found) == {"cross": "log"}
    assert shared_runs([evaluation("log", "x"), evaluation("cross", "y")]) == {}


def test_the_reason_is_said_only_where_the_label_tables_are_equal():
    shared = {"cross": "log"}
    because = "cross and log are evaluations of one run, because their label tables are equal, so their figures cannot"
    assert shared_sentences(shared, [labels("log"), labels("cross")]) == [f"{because} differ."]
    for tables in ([], [labels("log"), labels("cross", "b")]):
        said = ["cross and log are evaluations of one run, so their figures cannot differ."]
        assert shared_sentences(shared, tables) == said
