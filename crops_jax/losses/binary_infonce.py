"""Losses that know two kinds of documents: positives (level 4 and 5) and negatives (0 to 3)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from crops_jax.labels import Level, SparseLabels
from crops_jax.losses.arguments import LossInputs, LossOptions, validate_temperature
from crops_jax.losses.level_sums.api import Implementation, Split
from crops_jax.losses.level_sums.sums import LOWEST, LevelSums
from crops_jax.losses.terms import Terms, batch_loss, contrast, strictly_below


def infonce(
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    labels: SparseLabels | Int[Array, "queries docs"],
    *,
    temperature: float | Float[Array, ""],
    implementation: Implementation = "auto",
    query_weights: Float[Array, "queries"] | None = None,
    doc_mask: Bool[Array, "docs"] | None = None,
    doc_log_probabilities: Float[Array, "docs"] | None = None,
    options: LossOptions | None = None,
    split: Split | None = None,
) -> Float[Array, ""]:
    """InfoNCE with one positive a query, the first of those of its highest level.

        loss_i = - log [ e^z_ip / ( e^z_ip + sum over negatives k of e^z_ik ) ]

    Negatives are all real, unignored documents below level 4; further positives take no part, so that a pass for each
    of them makes up `multi_positive_infonce`. van den Oord et al., arXiv 1807.03748, with in-batch negatives.
    Arguments, result and errors as of `crops_jax.losses.h_infonce`.
    """
    validate_temperature("infonce", temperature)
    inputs = LossInputs(query_embeddings, doc_embeddings, labels, query_weights, doc_mask, doc_log_probabilities)
    return batch_loss(
        "infonce",
        infonce_terms,
        inputs,
        temperatures=temperature,
        implementation=implementation,
        options=options,
        split=split,
    )[0]


def multi_positive_infonce(
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    labels: SparseLabels | Int[Array, "queries docs"],
    *,
    temperature: float | Float[Array, ""],
    implementation: Implementation = "auto",
    query_weights: Float[Array, "queries"] | None = None,
    doc_mask: Bool[Array, "docs"] | None = None,
    doc_log_probabilities: Float[Array, "docs"] | None = None,
    options: LossOptions | None = None,
    split: Split | None = None,
) -> Float[Array, ""]:
    """InfoNCE with all positives of a query in one pass.

        loss_ip = - log [ e^z_ip / ( e^z_ip + sum over negatives k of e^z_ik ) ]   for every positive p

    The mean of what `infonce` gives with one pass for each positive; H-InfoNCE of binary labels. Arguments, result and
    errors as of `crops_jax.losses.h_infonce`.
    """
    validate_temperature("multi_positive_infonce", temperature)
    inputs = LossInputs(query_embeddings, doc_embeddings, labels, query_weights, doc_mask, doc_log_probabilities)
    return batch_loss(
        "multi_positive_infonce",
        multi_positive_infonce_terms,
        inputs,
        temperatures=temperature,
        implementation=implementation,
        options=options,
        split=split,
    )[0]


def infonce_terms(sums: LevelSums, temperatures: Float[Array, "1"]) -> Terms:
    """One term for each query that has a positive and a negative."""
    against = _negatives(sums, temperatures[0])
    first = sums.level.argmax(axis=1)[:, None]
    level = jnp.take_along_axis(sums.level, first, axis=1)
    counted = (level >= Level.POSITIVE) & (against > LOWEST / 2)
    z = jnp.take_along_axis(sums.score, first, axis=1) / temperatures[0]
    return Terms(contrast(z, against, counted), counted, level)


def multi_positive_infonce_terms(sums: LevelSums, temperatures: Float[Array, "1"]) -> Terms:
    """One term for each positive of a query that has a negative."""
    against = jnp.broadcast_to(_negatives(sums, temperatures[0]), sums.score.shape)
    counted = (sums.level >= Level.POSITIVE) & (against > LOWEST / 2)
    return Terms(contrast(sums.score / temperatures[0], against, counted), counted, sums.level)


def _negatives(sums: LevelSums, temperature: Float[Array, ""]) -> Float[Array, "queries 1"]:
    return strictly_below(sums, temperature, levels=Level.POSITIVE)[:, Level.POSITIVE, None]
