"""Sentences on the best encoder against BM25 that follow from the figures, and what is measured about the reasons."""

from collections.abc import Mapping, Sequence
from typing import Any

from crops_jax.labels import Level
from launch.run_report.comparison import System
from launch.run_report.headline import NDCG, Figure
from launch.run_report.sources import Evaluation, Labels, Run

_WORDS = {
    "better": "is better than",
    "worse": "is worse than",
    "no difference shown": "is not shown to differ from",
}
_POSITIVES = (Level.POSITIVE, Level.QUERY_LEVEL_POSITIVE)


def against_bm25(
    systems: Sequence[System],
    headline: Sequence[Figure],
    differences: Sequence[Mapping[str, Any]],
    *,
    labels: Sequence[Labels] = (),
    runs: Sequence[Run] = (),
    shared: Mapping[str, str] | None = None,
) -> list[str]:
    """Returns a sentence for each judged figure of the headline, and where BM25 is not beaten, what is known of why.

    The best encoder is that with the highest value of the figure. Only judged figures count, because neither the
    search engine of the log nor the discriminator chose their documents.

    Args:
      systems: the systems of one SPLIT.
      headline: the headline figures.
      differences: the rows of `compare`.
      labels: the label tables of the page, which are named after their arms.
      runs: the runs of the page, which are named after their arms.
      shared: from an arm that has no run of its own to the arm whose run it shares.
    """
    bm25 = next(system for system in systems if system.is_bm25)
    sentences, rows = [], []
    for figure in (one for one in headline if one.test == "judgements"):
        measured = [(found["value"], one.name) for one in systems if not one.is_bm25 and (found := one.figure(figure))]
        reference = bm25.figure(figure)
        if not measured or reference is None:
            continue
        value, best = max(measured, key=lambda pair: pair[0])
        row = _row(differences, best, bm25.name, figure.label)
        rows.append(row)
        named = f"{figure.label}: the best encoder, {best} ({value:.3f}), {_WORDS[row['verdict']]} BM25"
        sentences.append(f"{named} ({reference['value']:.3f}). {_interval(row)}")
    arms: Mapping[str, str] = shared or {}
    sentences += [
        _deeper_but_not_first(row, [one for one in headline if one.test == "judgements"], differences)
        for row in rows
        if row["label"] == NDCG.label and row["verdict"] != "better"
    ]
    not_better: list[str] = list(dict.fromkeys(row["system"] for row in rows if row["verdict"] != "better"))
    sentences += [_training(name, arms.get(name, name), labels, runs) for name in not_better]
    return [sentence for sentence in sentences if sentence]


def shared_runs(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """Returns the evaluations whose run is that of an earlier one: the name -> the name of the earlier one."""
    first: dict[str, str] = {}
    shared = {}
    for evaluation in evaluations:
        run = evaluation.manifest["inputs"].get("run")
        if run is not None and first.setdefault(run["fingerprint"], evaluation.name) != evaluation.name:
            shared[evaluation.name] = first[run["fingerprint"]]
    return shared


def shared_sentences(shared: Mapping[str, str], labels: Sequence[Labels]) -> list[str]:
    """Returns a sentence for each evaluation that shares a run; it says why where the label tables are on the page."""
    tables = {table.name: table.fingerprint for table in labels}
    sentences = []
    for name, other in shared.items():
        equal = name in tables and tables[name] == tables.get(other)
        reason = ", because their label tables are equal" if equal else ""
        sentences.append(f"{name} and {other} are evaluations of one run{reason}, so their figures cannot differ.")
    return sentences


def _row(differences: Sequence[Mapping[str, Any]], system: str, against: str, label: str) -> Mapping[str, Any]:
    wanted = (system, against, label)
    return next(row for row in differences if (row["system"], row["against"], row["label"]) == wanted)


def _interval(row: Mapping[str, Any]) -> str:
    interval = f"{row['value']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}) over {row['queries']:,} queries"
    if row["verdict"] in ("better", "worse"):
        return f"The mean difference is {interval}."
    half = (row["high"] - row["low"]) / 2
    return (
        f"The interval of the mean difference contains 0: {interval}. So few queries do not show a difference below "
        f"about {half:.3f}."
    )


def _deeper_but_not_first(
    of_ndcg: Mapping[str, Any], judged: Sequence[Figure], differences: Sequence[Mapping[str, Any]]
) -> str:
    """Returns that an encoder that is not better in NDCG is better in judged Recall, or "" where it is not."""
    name, against = of_ndcg["system"], of_ndcg["against"]
    recall = [_row(differences, name, against, one.label) for one in judged if one.metric.startswith("recall")]
    order = "is worse" if of_ndcg["verdict"] == "worse" else "is not shown to be better"
    if not any(row["verdict"] == "better" for row in recall):
        return ""
    return f"{name} finds more of the relevant documents than BM25, but the order of its first four {order}."


def _training(name: str, run_name: str, labels: Sequence[Labels], runs: Sequence[Run]) -> str:
    """Returns what is measured about the training of an arm: its labels and steps; "" where the page has neither."""
    table = next((one for one in labels if one.name == name), None)
    run = next((one for one in runs if one.name == run_name), None)
    learnt = []
    if table is not None:
        positives = sum(table.levels[level] for level in _POSITIVES)
        learnt.append(f"from {sum(table.levels.values()):,} labels, of which {positives:,} are positives")
    if run is not None:
        learnt.append(f"in {run.status['step']:,} steps")
    if not learnt:
        return ""
    return (
        f"{name} learnt {', '.join(learnt)}. This page does not measure whether more labels or more steps would change "
        "the verdict."
    )
