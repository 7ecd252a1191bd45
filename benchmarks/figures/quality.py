"""Tables of how good retrievers and discriminators are. Each function turns stored results into Markdown."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.figures.markdown import ABSENT, amount, interval, number, reached, signed_interval, table
from benchmarks.figures.results import Result
from launch.run_report.headline import Figure, headline

SYSTEMS = {
    "bm25": "BM25",
    "warm_start": "crops_jax, warm start on the catalogue",
    "search_log": "crops_jax, arm search_log",
    "cross_perspective": "crops_jax, arm cross_perspective",
}
"""How tables call a system, in the order of their rows."""

TESTS = {"ct": "CT", "qr": "QR", "judgements": "judged", "hidden_relevant": "hidden", "truth": "truth"}
_MOST_INPUT_WAIT = 0.01
_ROOM = ("random", "bm25", "oracle", "present_engine")
"""The rankings of which data.simulate measures the recall of the last day."""


def headline_systems(result: Result, *, pairs: str = "all") -> str:
    """One row a system: its headline figures. pairs: "all" as in the report, or "unseen" for each of them."""
    figures = headline_of(result)
    if pairs != "all":
        figures = tuple(dict.fromkeys(dataclasses.replace(figure, pairs=pairs) for figure in figures))
    names = [name for name in SYSTEMS if name in result.values["systems"]]
    header = ["system", *(figure.label for figure in figures)]
    return table(header, [[SYSTEMS[name], *_cells(result, name, figures)] for name in names])


def headline_of(result: Result) -> tuple[Figure, ...]:
    """The headline figures of a report, which the number of documents and the figures of its systems decide."""
    return headline(result.values["documents"], result.values["systems"].values())


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
    """Steps of each run, and the share of the time in which training waited for input, beside its aim."""
    rows = [
        [arm, amount(run["steps"]), _percent(run["input_wait"]), reached(run["input_wait"], at_most=_MOST_INPUT_WAIT)]
        for arm, run in result.values["training"].items()
    ]
    shared = result.values.get("shared_runs", {})
    rows += [[arm, f"the run of {other}, as the labels are equal", ABSENT, ABSENT] for arm, other in shared.items()]
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


def _cells(result: Result, name: str, columns: Sequence[Figure]) -> list[str]:
    figures = result.values["systems"].get(name, {})
    subsets = {"unseen_pairs": result.values.get("unseen_pairs", {}).get(name, {})}
    return [interval(figure.of(figures, subsets)) for figure in columns]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def recipes(result: Result) -> str:
    """One row for each recipe of training that was tried on the dev split, with the one that was chosen."""
    [outcome] = result.values["outcomes"]
    chosen, recall = outcome["chosen"], "dev_recall_at_10"
    header = ["system", "documents a query", "weight of levels 1 to 3", "mean over", "steps", "dev Recall@10", ""]
    rows = []
    for row in outcome["candidates"]:
        recipe = {name: value for name, value in row.items() if name != recall}
        rows.append(
            [
                f"`{row['system']}`",
                amount(row["documents_per_query"]),
                number(row["lower_level_weight"], digits=1),
                row["normalization"],
                amount(row["steps"]),
                number(row[recall], digits=4),
                "chosen" if recipe == chosen else "",
            ]
        )
    return table(header, rows)


def target_rows(compared: Mapping[str, Mapping[str, Any]]) -> str:
    """One row for each published figure that a world is calibrated on and that was measured in it."""
    rows = [
        [
            f"`{name}`",
            f"{number(one['value'], digits=2)} ± {number(one['tolerance'], digits=2)}",
            number(one["measured"]),
            "yes" if one["within"] else "no",
        ]
        for name, one in compared.items()
        if one["measured"] is not None
    ]
    return table(["figure", "target", "measured", "within the tolerance"], rows)


def world(result: Result) -> str:
    """The statistics of a generated log beside their targets, and how much room it leaves for a retriever."""
    (outcome,) = result.values["outcomes"]
    metrics = ("ct_recall@100", "qr_recall@100")
    room = [[f"`{name}`", *(number(outcome["room"][name][metric]) for metric in metrics)] for name in _ROOM]
    ranking = table(["ranking", "CT Recall@100", "QR Recall@100"], room)
    log = {name: one for name, one in outcome["targets"].items() if not name.startswith("bm25_")}
    return f"{target_rows(log)}\n\n{ranking}"
