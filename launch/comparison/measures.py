"""The values of a cell, one for each query and metric, from the files that launch.evaluate writes."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from launch.comparison.results.files import Measured, measured

HIDDEN = "hidden_relevant_recall@100"
TRUE_NDCG = "true_ndcg@4"
_NAMES = {
    ("ct", "recall@100"): "ct_recall@100",
    ("ct", "recall@10"): "ct_recall@10",
    ("qr", "recall@100"): "qr_recall@100",
    ("qr", "recall@10"): "qr_recall@10",
    ("hidden_relevant", "recall@100"): HIDDEN,
    ("judgements", "ndcg@4"): "ndcg@4",
    ("judgements", "ndcg@10"): "ndcg@10",
    ("judgements", "recall@100"): "judged_recall@100",
    ("judgements", "judged@4"): "judged@4",
    ("truth", "ndcg@4"): TRUE_NDCG,
}
_UNSEEN_PAIRS = "_unseen_pairs"
"""Follows the name of a metric that is measured over the pairs that were not clicked in the training part."""
_WITH_UNSEEN_PAIRS = ("ct_recall@100", "ct_recall@10", "qr_recall@100", "qr_recall@10")
MAIN = {
    "ct_recall@100": "CT Recall@100",
    "qr_recall@100": "QR Recall@100",
    "ndcg@4": "NDCG@4",
    TRUE_NDCG: "True NDCG@4",
    HIDDEN: "Hidden relevant Recall@100",
    "judged_recall@100": "Judged Recall@100",
}
"""The metrics of the main table with their labels. All but the first two measure relevance by sources that the
discriminator has never seen: judgements of split test, and the truth of a generated world. NDCG@4 counts documents
without a judgement as not relevant. True NDCG@4 has those of its queries that somebody searched, and every grade."""


def values_of(evaluation: Path, *, ranked_by: str) -> dict[str, dict[str, float]]:
    """Returns metric -> query -> value, of all pairs of each test set, and of the unseen pairs of CT and QR.

    Args:
      evaluation: the directory of launch.evaluate.
      ranked_by: "encoder" or "bm25".
    """
    found: dict[str, dict[str, float]] = {}
    wanted = [("system", "=", ranked_by), ("pairs", "in", ("all", "unseen"))]
    for row in pq.read_table(evaluation / "per_query.parquet", filters=wanted).to_pylist():
        name = _NAMES.get((row["test"], row["metric"]))
        if row["pairs"] == "unseen":
            name = f"{name}{_UNSEEN_PAIRS}" if name in _WITH_UNSEEN_PAIRS else None
        if name:
            found.setdefault(name, {})[row["query"]] = row["value"]
    return found


def as_metrics(
    values: Mapping[str, Mapping[str, float]], *, with_values: Collection[str] = tuple(MAIN)
) -> dict[str, Measured]:
    """Returns the metrics of a cell in the order of their queries.

    Args:
      values: metric -> query -> value.
      with_values: the metrics of which the value of each query is kept; of the others only the mean is.
    """
    found = {}
    for metric, by_query in values.items():
        ordered = sorted(by_query)
        fingerprint = hashlib.sha256(json.dumps(ordered).encode()).hexdigest()
        by_order = (by_query[query] for query in ordered)
        found[metric] = measured(by_order, fingerprint=fingerprint, with_values=metric in with_values)
    return found
