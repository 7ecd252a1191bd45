"""The metrics of the comparison on real data, from the files that launch.evaluate writes."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq

_AT = {"ndcg@10": "NDCG@10", "recall@10": "Recall@10", "recall@100": "Recall@100"}
_TESTS = {"judgements": ("", "judged"), "ct": ("clicked_", "clicked")}
LABELS = {
    **{f"{prefix}{metric}": f"{label} ({noun})" for prefix, noun in _TESTS.values() for metric, label in _AT.items()},
    **{f"unseen_{metric}": f"{label} (clicked, unseen queries)" for metric, label in _AT.items()},
}
"""The metrics with their labels."""
MEANINGS = {
    "judged": "the test queries with judgements. The gain of NDCG is the grade, and for Recall every grade above 0 is "
    "relevant. Documents without a judgement count as not relevant.",
    "clicked": "the queries of the test part of the log. A document is relevant if it was clicked for the query there.",
    "unseen queries": "those of them that do not occur in the training part of the log.",
}


def real_values(evaluation: Path, *, ranked_by: str) -> dict[str, dict[str, float]]:
    """Returns metric -> query -> value, of all pairs of the judged and of the clicked queries.

    Args:
      evaluation: the directory of launch.evaluate.
      ranked_by: the system of launch.evaluate that is measured.
    """
    found: dict[str, dict[str, float]] = {}
    wanted = [("system", "=", ranked_by), ("pairs", "=", "all")]
    for row in pq.read_table(evaluation / "per_query.parquet", filters=wanted).to_pylist():
        if row["test"] not in _TESTS or row["metric"] not in _AT:
            continue
        prefix, _ = _TESTS[row["test"]]
        found.setdefault(f"{prefix}{row['metric']}", {})[row["query"]] = row["value"]
        if row["test"] == "ct" and not row["seen"]:
            found.setdefault(f"unseen_{row['metric']}", {})[row["query"]] = row["value"]
    return found


def meanings(metrics: Mapping[str, str]) -> dict[str, str]:
    """Returns noun -> meaning, for the nouns that the labels of these metrics use."""
    return {noun: text for noun, text in MEANINGS.items() if any(noun in label for label in metrics.values())}
