"""The figures that the paper publishes: CroPS, AAAI 2026, arXiv 2511.15443, Kuaishou's logs.

The paper measures a pool of a billion videos, which no other data reproduces: the orders and the differences of systems
can agree with it, but not the values.
"""

CT, QR, NDCG = "ct_recall@100", "qr_recall@100", "ndcg@4"

_MAIN = {
    "bm25": (42.9, 22.5, 64.8),
    "nce": (53.6, 27.5, 65.4),
    "dpr": (56.0, 30.7, 66.5),
    "ance": (56.9, 31.3, 67.1),
    "adore_star": (59.4, 31.9, 67.4),
    "trisampler": (59.8, 32.2, 66.9),
    "fs_lr": (59.6, 33.0, 66.0),
    "crops": (69.1, 40.1, 67.0),
}
_ABLATIONS = {
    "crops_query_level": (63.3, 36.1, 66.5),
    "crops_query_system": (65.7, 37.4, 66.7),
    "crops_binary": (59.9, 32.1, 66.7),
    "crops_query_level_at_4": (67.1, 38.4, 66.8),
    "infonce": (67.8, 38.9, 66.9),
    "softmax_cross_entropy": (65.3, 37.8, 66.8),
}
PUBLISHED = {
    system: {metric: round(percent / 100, 4) for metric, percent in zip((CT, QR, NDCG), row, strict=True)}
    for system, row in (_MAIN | _ABLATIONS).items()
}
"""System -> metric -> value in [0, 1], of the paper's dense encoder (its tables of systems, perspectives, labels and
losses)."""

TRAINING_HOURS = {"infonce": 178, "softmax_cross_entropy": 89, "crops": 88}
"""System -> hours of training that the paper reports. Its InfoNCE takes one step for each positive of a query."""


def published(system: str, architecture: str, metric: str) -> float | None:
    """Returns the paper's value of a metric, or None where it has none, as for hashed towers."""
    return None if architecture == "hashed" else PUBLISHED.get(system, {}).get(metric)
