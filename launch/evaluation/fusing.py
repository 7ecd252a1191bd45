"""The systems that fuse the lists of the encoder and of BM25, and the weight that is chosen on dev queries."""

from typing import Any

from crops_jax.retrieval.fusion import (
    RANK_CONSTANT,
    best_weight,
    reciprocal_rank_fusion,
    weight_curve,
    weighted_fusion,
)
from launch.corpus.documents import Corpus
from launch.evaluation.dev_queries import DevQueries
from launch.evaluation.searching import Retrieved

RRF, WEIGHTED = "fusion_rrf", "fusion_weighted"


def fuse(
    encoder: Retrieved, bm25: Retrieved, dev: DevQueries, corpus: Corpus
) -> tuple[dict[str, Retrieved], dict[str, Any]]:
    """Returns the fused lists of the test queries by system, and the description of the fusion for metrics.json.

    Args:
      encoder, bm25: the lists of the test queries, followed by those of the dev queries.
      dev: the dev queries. Without them no weight can be chosen, and the system "fusion_weighted" is missing.
      corpus: the documents; the order of their ids breaks ties.
    """
    order, depth = corpus.order, encoder.indices.shape[1]
    tests = len(encoder.indices) - len(dev.queries)
    lists = (encoder.first(tests), bm25.first(tests))
    fused = {RRF: Retrieved(*reciprocal_rank_fusion(lists, depth, order=order))}
    description: dict[str, Any] = {"of": ["encoder", "bm25"], "depth": depth, "rrf": {"constant": RANK_CONSTANT}}
    if dev.absent:
        return fused, {"fusion": description | {"weighted": {"absent": dev.absent}}}
    curve = weight_curve(
        encoder.after(tests),
        bm25.after(tests),
        lambda indices: dev.mean(indices, corpus.doc_ids),
        depth,
        order=order,
    )
    weight = best_weight(curve)
    fused[WEIGHTED] = Retrieved(*weighted_fusion(lists, (weight, 1 - weight), depth, order=order))
    chosen = {
        "encoder_weight": weight,
        "chosen_on": dev.source,
        "metric": dev.metric,
        "queries": len(dev.queries),
        "curve": [{"encoder_weight": one, "value": value} for one, value in curve.items()],
    }
    return fused, {"fusion": description | {"weighted": chosen}}
