"""The values of a cell, one for each query and metric, from the files that launch.evaluate writes."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from crops_jax.text import normalise_query
from data.tables import open_logs

HIDDEN = "hidden_relevant_recall@100"
_DEPTH = 100
_NAMES = {
    ("ct", "recall@100"): "ct_recall@100",
    ("ct", "recall@10"): "ct_recall@10",
    ("qr", "recall@100"): "qr_recall@100",
    ("qr", "recall@10"): "qr_recall@10",
    ("judgements", "ndcg@4"): "ndcg@4",
    ("judgements", "ndcg@10"): "ndcg@10",
    ("judgements", "recall@100"): "judged_recall@100",
}
MAIN = {
    "ct_recall@100": "CT Recall@100",
    "qr_recall@100": "QR Recall@100",
    "ndcg@4": "NDCG@4",
    HIDDEN: "Hidden relevant Recall@100",
    "judged_recall@100": "Judged Recall@100",
}
"""The metrics of the main table with their labels. The discriminator that chose the reformulations of QR has seen
neither the queries nor the grades of the last three, which are judgements of split test."""

ShownPairs = Callable[[], frozenset[tuple[str, str]]]


def values_of(evaluation: Path, *, ranked_by: str, shown: ShownPairs) -> dict[str, dict[str, float]]:
    """Returns metric -> query -> value.

    Hidden relevant recall is the share of the relevant documents of a query that no search showed for it, in the
    training part or later, that are among the first 100. A query without such a document has no value.

    Args:
      evaluation: the directory of launch.evaluate.
      ranked_by: "encoder" or "bm25".
      shown: a function that returns the pairs (normalised query, document) that the logs show.
    """
    found: dict[str, dict[str, float]] = {}
    wanted = [("system", "=", ranked_by), ("pairs", "=", "all")]
    for row in pq.read_table(evaluation / "per_query.parquet", filters=wanted).to_pylist():
        if name := _NAMES.get((row["test"], row["metric"])):
            found.setdefault(name, {})[row["query"]] = row["value"]
    rows = pq.read_table(evaluation / "relevant.parquet", filters=[("test", "=", "judgements")]).to_pylist()
    hits: dict[str, list[bool]] = {}
    for row in rows:
        if (row["query"], row["doc_id"]) not in shown():
            rank = row[f"{ranked_by}_rank"]
            hits.setdefault(row["query"], []).append(rank is not None and rank <= _DEPTH)
    if hits:
        found[HIDDEN] = {query: sum(ranked) / len(ranked) for query, ranked in hits.items()}
    return found


def shown_pairs(logs: Path) -> frozenset[tuple[str, str]]:
    """Returns the pairs (normalised query, document) that any search of the logs showed, for judged test queries.

    Args:
      logs: the log tables before the hold-out, so that the test period is a part of them.
    """
    tables = open_logs(logs)
    if "judgements" not in tables.names or not {"searches", "candidates"} <= tables.names:
        return frozenset()
    judged = {normalise_query(query) for query in tables.read("judgements", ["query"])["query"].unique().to_pylist()}
    connection = tables.connect()
    searches, candidates = connection.table("searches"), connection.table("candidates")
    pairs = candidates.filter(candidates.stage == "shown").join(searches, "search_id").select("query", "doc_id")
    rows = pairs.distinct().to_pyarrow()
    forms = {query: normalise_query(query) for query in rows["query"].unique().to_pylist()}
    return frozenset(
        (forms[query], doc_id)
        for query, doc_id in zip(rows["query"].to_pylist(), rows["doc_id"].to_pylist(), strict=True)
        if forms[query] in judged
    )


def as_lists(values: Mapping[str, Mapping[str, float]]) -> tuple[dict[str, str], dict[str, list[float]]]:
    """Returns the fingerprint of the queries of each metric in their order, and the values in that order."""
    queries, lists = {}, {}
    for metric, by_query in values.items():
        ordered = sorted(by_query)
        queries[metric] = hashlib.sha256(json.dumps(ordered).encode()).hexdigest()
        lists[metric] = [round(by_query[query], 6) for query in ordered]
    return queries, lists
