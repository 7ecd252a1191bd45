"""Tables of how good retrievers and discriminators are. Each function turns stored results into Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.figures.markdown import ABSENT, amount, interval, number, reached, signed_interval, table
from benchmarks.figures.results import Result

SYSTEMS = {
    "bm25": "BM25",
    "untrained": "untrained MiniLM-L6",
    "sentence_transformers": "sentence-transformers 6.2, MNRL, 1 epoch",
    "search_log": "crops_jax, arm search_log",
    "cross_perspective": "crops_jax, arm cross_perspective",
}
"""How tables call a system, in the order of their rows."""

METRICS = {"recall@10": "Recall@10", "recall@100": "Recall@100", "ndcg@4": "NDCG@4", "ndcg@10": "nDCG@10"}
TESTS = {"ct": "CT", "qr": "QR", "judgements": "judged", "hidden_relevant": "hidden"}
_MOST_INPUT_WAIT = 0.01

Column = tuple[str, str]
"""A test set and a metric, such as ("ct", "recall@100")."""


def systems(result: Result, columns: Sequence[Column], *, of: str = "systems") -> str:
    """One row a system: its figures with intervals. of: which part of the values, such as unseen_queries."""
    figures = result.values[of]
    names = [name for name in SYSTEMS if name in figures]
    header = ["system", *(f"{TESTS[test]} {METRICS[metric]}" for test, metric in columns)]
    return table(header, [[SYSTEMS[name], *_cells(figures[name], columns)] for name in names])


def differences(result: Result) -> str:
    """One row for each paired difference of the report, with the verdict that its interval allows."""
    rows = [
        [
            SYSTEMS[row["system"]],
            SYSTEMS[row["against"]],
            row["label"],
            signed_interval(row),
            amount(row["queries"]),
            row["verdict"],
        ]
        for row in result.values["differences"]
    ]
    return table(["system", "against", "figure", "mean difference", "queries", "verdict"], rows)


def verdicts(result: Result, system: str, against: str, *, place: str) -> str:
    """A line with each figure in which a system was compared with another. place: such as "In the demo"."""
    other = SYSTEMS[against].split()[-1]
    found = [
        f"{row['label']} {signed_interval(row)} over {amount(row['queries'])} queries ({row['verdict']})"
        for row in result.values["differences"]
        if (row["system"], row["against"]) == (system, against)
    ]
    return f"- {place}, {system} minus {other}: {'; '.join(found)}."


def headline(demo: Result, bestbuy: Result) -> str:
    """The table of README.md: the strongest rows on real data beside the generated world."""
    real: list[Column] = [("ct", "recall@10"), ("ct", "recall@100")]
    generated: list[Column] = [("ct", "recall@100"), ("qr", "recall@100"), ("judgements", "ndcg@4")]
    parts = (("Best Buy", bestbuy, real), ("demo", demo, generated))
    header = ["system", *(f"{data} {TESTS[test]} {METRICS[name]}" for data, _, some in parts for test, name in some)]
    rows = [
        [SYSTEMS[name], *(cell for _, one, some in parts for cell in _cells(one.values["systems"].get(name), some))]
        for name in SYSTEMS
    ]
    compared = [
        verdicts(bestbuy, "cross_perspective", "search_log", place="On Best Buy"),
        verdicts(demo, "cross_perspective", "search_log", place="In the demo"),
        verdicts(demo, "cross_perspective", "bm25", place="In the demo"),
    ]
    return "\n\n".join([table(header, rows), "\n".join(compared)])


def test_sets(result: Result) -> str:
    """The size of each test set, and how much of it the log holds already."""
    names = ("queries", "relevant_pairs", "unseen_queries", "unseen_pairs")
    rows = [
        [TESTS[test], *(amount(counts.get(name)) for name in names)]
        for test, counts in result.values["tests"].items()
        if "absent" not in counts
    ]
    return table(["test set", "queries", "relevant pairs", "queries not in the log", "pairs not in the log"], rows)


def labels(result: Result) -> str:
    """The labels of each arm by source."""
    arms = result.values["labels"]
    sources = dict.fromkeys(source for counts in arms.values() for source in counts)
    rows = [[f"`{source}`", *(amount(counts.get(source, 0)) for counts in arms.values())] for source in sorted(sources)]
    return table(["source", *(f"labels of arm {arm}" for arm in arms)], rows)


def training(result: Result) -> str:
    """Steps of each arm, and the share of the time in which training waited for input, beside its aim."""
    rows = [
        [arm, amount(run["steps"]), _percent(run["input_wait"]), reached(run["input_wait"], at_most=_MOST_INPUT_WAIT)]
        for arm, run in result.values["training"].items()
    ]
    return table(["arm", "steps", "share of input wait", "aim of at most 1 % reached"], rows)


def discriminators(*results: Result) -> str:
    """One row a discriminator: its AUC beside the lexical one's, and its calibration error."""
    rows = []
    for result in results:
        values = result.values["outcomes"][0]
        auc = values["auc"]
        errors = f"{number(values['ece_before'])}, {number(values['ece_after'])}"
        rows.append(
            [
                result.title,
                interval(auc["cross_encoder"]),
                interval(auc["lexical"]),
                signed_interval(auc["difference"]),
                errors,
            ]
        )
    return table(["data", "AUC, cross-encoder", "AUC, lexical", "difference", "ECE before, after"], rows)


def facts(result: Result) -> str:
    """Rows of text, as they were recorded."""
    return table(result.values["header"], result.values["rows"])


def _cells(figures: Mapping[str, Any] | None, columns: Sequence[Column]) -> list[str]:
    if figures is None:
        return [ABSENT] * len(columns)
    return [interval(figures.get(test, {}).get(metric)) for test, metric in columns]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
