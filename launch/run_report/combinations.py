"""The systems on top of an encoder, for a report: its list fused with that of BM25, or reordered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launch.run_report.comparison import paired, verdict
from launch.run_report.headline import Figure
from launch.run_report.sources import Evaluation

_BASE_SYSTEMS = ("encoder", "bm25", "index")


@dataclass(frozen=True, kw_only=True)
class Combination:
    """A system on top of an encoder: its main figures, and their paired differences to the encoder alone."""

    encoder: str
    """The name of the evaluation."""
    system: str
    """The name of the system in metrics.json, such as "fusion_rrf"."""
    words: str
    figures: dict[str, dict[str, Any]]
    """The figures by the labels of the headline."""
    differences: dict[str, dict[str, Any]]
    """The differences to the encoder with a "verdict", by the labels of the headline."""


def combinations(evaluations: Sequence[Evaluation], headline: Sequence[Figure]) -> list[Combination]:
    """Returns the systems on top of each encoder; evaluations of earlier versions have none."""
    return [
        _combination(evaluation, system, headline)
        for evaluation in evaluations
        for system in evaluation.metrics["systems"]
        if system not in _BASE_SYSTEMS
    ]


def _combination(evaluation: Evaluation, system: str, headline: Sequence[Figure]) -> Combination:
    metrics = evaluation.metrics
    tables, subsets = metrics["systems"][system], metrics["subsets"].get(system, {})
    stored = metrics["differences"][f"{system} - encoder"]
    # metrics.json holds no differences over a part of the pairs.
    parts = [one for one in headline if one.pairs != "all"]
    of_parts = paired(evaluation.values(system), evaluation.values("encoder"), parts)
    differences = {label: interval.as_json() for label, interval in of_parts.items()}
    differences |= {one.label: found for one in headline if one.pairs == "all" and (found := one.of(stored, {}))}
    return Combination(
        encoder=evaluation.name,
        system=system,
        words=_words(system, metrics),
        figures={one.label: figure for one in headline if (figure := one.of(tables, subsets))},
        differences={label: {**figure, "verdict": verdict(figure)} for label, figure in differences.items()},
    )


def _words(system: str, metrics: Mapping[str, Any]) -> str:
    if system == "fusion_rrf":
        return "with BM25, by reciprocal rank fusion"
    if system == "fusion_weighted":
        chosen = metrics["fusion"]["weighted"]
        return (
            f"with BM25, by a weighted sum; the weight of the encoder is {chosen['encoder_weight']:g}, chosen by "
            f"{_metric(chosen['metric'])} on {chosen['queries']:,} dev queries"
        )
    if system == "reranked":
        reranking = metrics["reranking"]
        circular = "" if reranking["chose_qr"] is False else "; QR is circular, see the notes"
        theta = f"the relevance discriminator (theta, {reranking['kind'].replace('_', ' ')})"
        return f"its first {reranking['depth']} documents in the order of {theta}{circular}"
    if system in ("poly_encoder", "poly_encoder_exhaustive"):
        described = metrics["poly_encoder"]
        reordered = f"its first {described['depth']} documents in the order of"
        subject = reordered if system == "poly_encoder" else f"all {described['documents']:,} documents scored by"
        return f"{subject} a Poly-encoder with {described['codes']} codes"
    return system


def _metric(name: str) -> str:
    return name.replace("recall", "Recall").replace("ndcg", "NDCG")
