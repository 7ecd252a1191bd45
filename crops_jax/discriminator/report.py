"""The report of a cross-encoder discriminator: temperature, calibration error and AUC on queries that it never saw."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from crops_jax.discriminator.auc import auc_intervals
from crops_jax.discriminator.calibration import alpha_sweep, expected_calibration_error, fit_temperature, sigmoid
from crops_jax.discriminator.cross_encoder import CrossEncoderDiscriminator
from crops_jax.discriminator.lexical import LexicalDiscriminator
from crops_jax.discriminator.slices import Slices


def calibrate(
    discriminator: CrossEncoderDiscriminator,
    queries: Sequence[str],
    documents: Sequence[str],
    targets: Float64[np.ndarray, "pairs"],
    *,
    parts: Slices,
    lexical: LexicalDiscriminator,
) -> dict[str, Any]:
    """Sets the temperature and the report of the discriminator, and returns the report.

    Args:
      discriminator: the trained cross-encoder.
      queries, documents, targets: the query, the document and the target in [0, 1] of each pair.
      parts: the slices; the discriminator was trained on parts.train.
      lexical: a discriminator that was fitted on parts.train, for the comparison.

    Returns:
      The report: pairs, queries, mean_target; temperature; ece_before and ece_after (on parts.measure);
      calibrated_on; held_out_pairs; auc: cross_encoder, lexical and difference on all held-out pairs, each with its
      interval over queries; alpha_sweep of these pairs, with the mean target of the pairs that pass.
    """
    chosen = np.flatnonzero(parts.temperature | parts.measure)
    texts = tuple([side[pair] for pair in chosen.tolist()] for side in (queries, documents))
    target = np.asarray(targets, np.float64)[chosen]
    logits = discriminator.logits(*texts, progress=True).astype(np.float64)
    tune, measure = parts.temperature[chosen], parts.measure[chosen]
    discriminator.temperature = fit_temperature(logits[tune], target[tune])
    scores = sigmoid(logits / discriminator.temperature)
    auc = auc_intervals(
        {"cross_encoder": logits, "lexical": lexical.score(*texts)},
        target,
        texts[0],
        difference=("cross_encoder", "lexical"),
    )
    discriminator.report = {
        "pairs": len(targets),
        "queries": len(set(queries)),
        "mean_target": round(float(np.mean(targets)), 6),
        "temperature": discriminator.temperature,
        "ece_before": round(expected_calibration_error(sigmoid(logits[measure]), target[measure]), 6),
        "ece_after": round(expected_calibration_error(scores[measure], target[measure]), 6),
        "calibrated_on": "held-out queries" if parts.apart else "the pairs it was fitted on",
        "held_out_pairs": len(chosen),
        "auc": {name: interval.as_json() for name, interval in auc.items()},
        "alpha_sweep": _sweep(scores, target),
    }
    return discriminator.report


def _sweep(scores: Float64[np.ndarray, "pairs"], targets: Float64[np.ndarray, "pairs"]) -> list[dict[str, Any]]:
    rows = []
    for row in alpha_sweep(scores):
        passing = targets[scores > row["alpha"]]
        rows.append({**row, "mean_target": round(float(passing.mean()), 6) if len(passing) else None})
    return rows
