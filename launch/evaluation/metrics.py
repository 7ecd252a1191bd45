"""The tables of figures in metrics.json, and the line that a program prints of them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crops_jax.retrieval.evaluation import Value, differences, figures
from crops_jax.retrieval.intervals import Interval, bootstrap_mean
from launch.evaluation.searching import Retrieved

if TYPE_CHECKING:
    from crops_jax.retrieval.scann_index import Index

BASE_SYSTEMS = ("encoder", "bm25")
"""The systems that every evaluation has; the others are made from them."""


def figure_tables(per_query: Mapping[str, Sequence[Value]], *, samples: int) -> dict[str, Any]:
    """Returns the main figures ("systems"), those of seen and unseen queries and pairs ("subsets"), and "differences".

    The differences are paired: that of the encoder to BM25, and those of each system on top of the encoder to both.
    """
    systems = {name: found for name, found in per_query.items() if name != "index"}
    subsets: dict[str, Any] = {}
    for name, found in systems.items():
        subsets[name] = {
            "seen_queries": _json(figures(found, seen=True, samples=samples)),
            "unseen_queries": _json(figures(found, seen=False, samples=samples)),
            "seen_pairs": _json(figures(found, pairs="seen", samples=samples)),
            "unseen_pairs": _json(figures(found, pairs="unseen", samples=samples)),
        }
    pairs = [("encoder", "bm25")]
    pairs += [(name, base) for name in systems if name not in BASE_SYSTEMS for base in BASE_SYSTEMS]
    return {
        "systems": {name: _json(figures(found, samples=samples)) for name, found in systems.items()},
        "subsets": subsets,
        "differences": {
            f"{one} - {other}": _json(differences(systems[one], systems[other], samples=samples))
            for one, other in pairs
        },
    }


def _json(tables: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, Any]]:
    return {test: {metric: found.as_json() for metric, found in row.items()} for test, row in tables.items()}


def index_gap(
    index: "Index", served: Retrieved, exact: Retrieved, per_query: Mapping[str, Sequence[Value]], *, samples: int
) -> dict[str, Any]:
    """Returns the cost of serving from the index: its recall against exact search, and each figure's change."""
    from crops_jax.retrieval.scann_index import index_recall

    depth = served.indices.shape[1]
    recalls = {
        f"recall@{k}": bootstrap_mean(
            index_recall((exact.scores[:, :k], exact.indices[:, :k]), (served.scores[:, :k], served.indices[:, :k])),
            samples=samples,
        ).as_json()
        for k in sorted({min(10, depth), depth})
    }
    change = differences(per_query["index"], per_query["encoder"], samples=samples)
    return {**index.settings, **recalls, "minus_exact": _json(change)}


def headline(tables: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    shown = {
        "CT Recall@100": ("ct", "recall@100"),
        "QR Recall@100": ("qr", "recall@100"),
        "NDCG@4": ("judgements", "ndcg@4"),
        "hidden_relevant_recall@100": ("hidden_relevant", "recall@100"),
    }
    return {
        label: tables[test][metric]["value"]
        for label, (test, metric) in shown.items()
        if test in tables and metric in tables[test]
    }
