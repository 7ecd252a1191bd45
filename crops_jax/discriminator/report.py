"""The report of a cross-encoder discriminator: calibration, calibration error and AUC on queries that it never saw."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from crops_jax.discriminator.auc import auc_intervals
from crops_jax.discriminator.calibration import alpha_sweep, fit_scaling, sigmoid
from crops_jax.discriminator.cross_encoder import CrossEncoderDiscriminator
from crops_jax.discriminator.lexical import LexicalDiscriminator
from crops_jax.discriminator.populations import POOL, Populations, calibration_report
from crops_jax.discriminator.slices import Slices


def calibrate(
    discriminator: CrossEncoderDiscriminator,
    queries: Sequence[str],
    documents: Sequence[str],
    targets: Float64[np.ndarray, "pairs"],
    *,
    parts: Slices,
    lexical: LexicalDiscriminator,
    populations: Populations | None = None,
) -> dict[str, Any]:
    """Sets the calibration and the report of the discriminator, and returns the report.

    Args:
      discriminator: the trained cross-encoder.
      queries, documents, targets: the query, the document and the target in [0, 1] of each pair.
      parts: the slices; the discriminator was trained on parts.train.
      lexical: a discriminator that was fitted on parts.train, for the comparison.
      populations: the population of each pair; None if all pairs belong to the pool.

    Returns:
      The report: pairs, queries, mean_target; temperature and bias; calibrated_on; the fields of `calibration_report`
      (on parts.measure); held_out_pairs; auc: cross_encoder, lexical and difference on the held-out pairs of the pool,
      each with its interval over queries; alpha_sweep of these pairs, with the mean target of the pairs that pass.
    """
    if populations is None:
        populations = Populations.only_pool(len(targets))
    chosen = np.flatnonzero(parts.temperature | parts.measure)
    texts = tuple([side[pair] for pair in chosen.tolist()] for side in (queries, documents))
    target, mixture = np.asarray(targets, np.float64)[chosen], populations.of(chosen)
    logits = discriminator.logits(*texts, progress=True).astype(np.float64)
    tune, measure = parts.temperature[chosen], parts.measure[chosen]
    discriminator.scaling = fit_scaling(logits[tune], target[tune], weights=mixture.of(tune).weights())
    scores = discriminator.scaling.probabilities(logits)
    pool = mixture.index == POOL
    auc = auc_intervals(
        {"cross_encoder": logits[pool], "lexical": lexical.score(*texts)[pool]},
        target[pool],
        [query for query, inside in zip(texts[0], pool, strict=True) if inside],
        difference=("cross_encoder", "lexical"),
    )
    discriminator.report = {
        "pairs": len(targets),
        "queries": len(set(queries)),
        "mean_target": round(float(np.mean(targets)), 6),
        **discriminator.scaling._asdict(),
        "calibrated_on": "held-out queries" if parts.apart else "the pairs it was fitted on",
        **calibration_report(sigmoid(logits), scores, target, mixture, measure),
        "held_out_pairs": int(pool.sum()),
        "auc": {name: interval.as_json() for name, interval in auc.items()},
        "alpha_sweep": _sweep(scores[pool], target[pool]),
    }
    return discriminator.report


def _sweep(scores: Float64[np.ndarray, "pairs"], targets: Float64[np.ndarray, "pairs"]) -> list[dict[str, Any]]:
    rows = []
    for row in alpha_sweep(scores):
        passing = targets[scores > row["alpha"]]
        rows.append({**row, "mean_target": round(float(passing.mean()), 6) if len(passing) else None})
    return rows
