"""The head of the page: the verdict, the facts and what to do next, from figures made by hand."""

from pathlib import Path

import pytest

from launch.run_report.combinations import Combination
from launch.run_report.comparison import System
from launch.run_report.headline import Figure
from launch.run_report.sources import Evaluation, Labels, Run, Sources, Work
from launch.run_report.summary import facts_of, next_steps, verdict_of

HEADLINE = (
    Figure(test="judgements", metric="recall@100"),
    Figure(test="ct", metric="recall@10", pairs="unseen"),
    Figure(test="ct", metric="recall@10"),
)
LABELS = tuple(figure.label for figure in HEADLINE)


def system(name, value):
    figures = {"judgements": {"recall@100": {"value": value, "low": 0.0, "high": 1.0, "queries": 9}}}
    return System(name=name, figures=figures, subsets={}, values=[])


def rows(name, against, verdicts):
    signs = {"better": (0.1, 0.3), "worse": (-0.3, -0.1), "no difference shown": (-0.2, 0.1)}
    return [
        {"system": name, "against": against, "label": label, "verdict": verdict, "low": low, "high": high}
        for label, verdict in zip(LABELS, verdicts, strict=True)
        for low, high in [signs[verdict]]
    ]


LOG, CROSS, BM25 = system("log", 0.7), system("cross", 0.9), system("bm25", 0.95)


def sources(*, runs=(), labels=(), works=(), evaluations=()):
    return Sources(evaluations=list(evaluations), runs=list(runs), labels=list(labels), works=list(works), manifests={})


def run(name, goodput):
    return Run(path=Path("work") / name / "run", name=name, lines=[], goodput=goodput, status={}, version="0.1.0")


def test_the_verdict_names_the_best_encoder_and_where_it_is_better_and_worse():
    found = [
        *rows("cross", "bm25", ["worse", "better", "no difference shown"]),
        *rows("cross", "log", ["better", "better", "better"]),
        *rows("log", "bm25", ["worse", "worse", "worse"]),
    ]
    assert verdict_of([LOG, CROSS, BM25], HEADLINE, found) == (
        "Of the 2 encoders, cross has the highest Judged Recall@100; it is better than BM25 in CT Recall@10 of unseen "
        "pairs and worse in Judged Recall@100 (no difference is shown in the other one), and better than log in all 3 "
        "headline figures."
    )


def test_a_verdict_without_any_difference_says_so():
    found = [
        *rows("cross", "bm25", ["no difference shown"] * 3),
        *rows("cross", "log", ["worse", "no difference shown", "no difference shown"]),
    ]
    assert verdict_of([LOG, CROSS, BM25], HEADLINE, found) == (
        "Of the 2 encoders, cross has the highest Judged Recall@100; it is not shown to differ from BM25 in any of the "
        "3 headline figures, and worse than log in Judged Recall@100 (no difference is shown in the 2 others)."
    )


def test_a_single_encoder_is_compared_with_bm25_alone():
    found = rows("log", "bm25", ["worse", "worse", "worse"])
    assert verdict_of([LOG, BM25], HEADLINE, found) == (
        "log is the only encoder of this page; it is worse than BM25 in all 3 headline figures."
    )


def test_no_query_gives_no_verdict():
    bare = [System(name=name, figures={}, subsets={}, values=[]) for name in ("log", "bm25")]
    assert verdict_of(bare, HEADLINE, []) == "No test set has a query, so the systems cannot be compared."
    assert next_steps(bare, HEADLINE, [], [], sources(), {}) == []


START = {
    "event": "start",
    "time": "2026-03-01T23:59:00+00:00",
    "devices": "8 x TPU v5 lite",
    "processes": 2,
    "commit": "0123456789ab",
    "seconds": 10.0,
}


def test_the_facts_are_those_of_the_sources():
    evaluation = Evaluation(
        path=Path("e"),
        name="log",
        metrics={
            "documents": 1234,
            "logs_fingerprint": "f" * 64,
            "tests": {"ct": {"queries": 56}, "qr": {"absent": "no table"}, "judgements": {"queries": 0}},
        },
        manifest={
            "inputs": {
                "logs": {"manifest": {"program": "data.hold_out", "arguments": {"from_time": "2026-02-01", "by": ""}}}
            }
        },
    )
    resumed = {**START, "time": "2026-03-02T01:00:00+00:00", "seconds": 20.0}
    runs = [run("log", [START, {"step": 5, "seconds": 5400.0}, resumed]), run("cross", [{"step": 5, "seconds": 60.0}])]
    work = Work(path=Path("work"), command="python -m launch.pipeline tiny_cpu", seconds={"mine": 100.0, "train": 80.0})
    assert facts_of([evaluation, evaluation], runs, [work]) == [
        ("Data", "1,234 documents; test queries: 56 ct; the test period begins at 2026-02-01; log tables ffffffffffff"),
        ("Trained", "2026-03-01 to 2026-03-02"),
        ("Cost of training", "log 1.5 h on 8 x TPU v5 lite, with 1 restart; cross 60 s"),
        ("Time of all steps", "3 min"),
        ("Source", "crops_jax 0.1.0, commit 0123456789ab; crops_jax 0.1.0"),
        ("Command", "python -m launch.pipeline tiny_cpu"),
    ]


def test_what_is_not_recorded_is_left_out():
    assert facts_of([], [], [Work(path=Path("w"), command="", seconds={})]) == []
    assert facts_of([], [run("log", [])], []) == [("Source", "crops_jax 0.1.0")]


def combination(verdicts):
    differences = {label: {"verdict": verdict} for label, verdict in zip(LABELS, verdicts, strict=True)}
    return Combination(
        encoder="cross",
        system="fusion_weighted",
        words="with BM25, by a weighted sum; the weight is 1",
        figures={},
        differences=differences,
    )


def test_an_encoder_that_is_nowhere_worse_is_exported():
    found = rows("cross", "bm25", ["better", "better", "no difference shown"])
    table = Labels(path=Path("l"), name="cross", levels={}, sources={}, alpha_sweep=None, mined={}, fingerprint="a")
    work = Work(path=Path("my work"), command="", seconds={})
    given = sources(runs=[run("cross", [])], labels=[table], works=[work])
    fused = combination(["better", "better", "no difference shown"])
    assert next_steps([LOG, CROSS, BM25], HEADLINE, found, [fused], given, {}) == [
        (
            "Look at what cross finds for your own queries.",
            "python -m launch.search --run work/cross/run --logs 'my work/split' 'a query'",
        ),
        (
            "Serve cross with BM25, by a weighted sum. This is better than the encoder alone, and nowhere worse.",
            "",
        ),
        ("Hold out more queries: the present ones cannot show a difference below about 0.150.", ""),
        ("Export cross for other libraries.", "python -m launch.export --run work/cross/run --output encoder"),
    ]


@pytest.mark.parametrize("verdicts", [["worse", "better", "better"], ["no difference shown"] * 3])
def test_a_fusion_that_loses_somewhere_or_gains_nothing_is_not_recommended(verdicts):
    found = rows("cross", "bm25", ["better"] * 3)
    steps = next_steps([LOG, CROSS, BM25], HEADLINE, found, [combination(verdicts)], sources(), {})
    assert not any("Serve" in sentence for sentence, _ in steps)


def test_where_bm25_leads_the_labels_are_looked_at_and_nothing_is_exported():
    found = rows("cross", "bm25", ["worse", "better", "better"])
    steps = next_steps([LOG, CROSS, BM25], HEADLINE, found, [], sources(), {})
    assert steps[0][1] == "python -m launch.search --run RUN --logs SPLIT 'a query'"
    assert steps[1] == (
        "Find out why BM25 leads in Judged Recall@100. The page of the labels shows how many of them are relevant and "
        "new. More steps, and pre-trained weights, are the other things to vary.",
        "python -m data.report --labels LABELS --logs SPLIT --output labels.html",
    )
    assert len(steps) == 2
