"""Losses that distinguish only two kinds of documents: positives (levels 4 and 5) and negatives (levels 0 to 3)."""

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
    """Returns InfoNCE with one positive per query: the first document of the query's highest level.

        loss_i = - log [ e^z_ip / ( e^z_ip + sum over negatives k of e^z_ik ) ]

    The negatives are all real documents below level 4 that are not ignored. Further positives have no influence, so
    that one pass for each positive adds up to `multi_positive_infonce`. The loss is that of van den Oord et al., arXiv
    1807.03748, with in-batch negatives. Arguments, result and errors are those of `crops_jax.losses.h_infonce`.
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
    """Returns InfoNCE with all positives of a query in one pass.

        loss_ip = - log [ e^z_ip / ( e^z_ip + sum over negatives k of e^z_ik ) ]   for every positive p

    The loss is the mean of the results of `infonce` with one pass for each positive. It equals H-InfoNCE for binary
    labels. Arguments, result and errors are those of `crops_jax.losses.h_infonce`.
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
    """Returns one term for each query that has a positive and a negative."""
    against = _negatives(sums, temperatures[0])
    first = sums.level.argmax(axis=1)[:, None]
    level = jnp.take_along_axis(sums.level, first, axis=1)
    counted = (level >= Level.POSITIVE) & (against > LOWEST / 2)
    z = jnp.take_along_axis(sums.score, first, axis=1) / temperatures[0]
    return Terms(contrast(z, against, counted), counted, level)


def multi_positive_infonce_terms(sums: LevelSums, temperatures: Float[Array, "1"]) -> Terms:
    """Returns one term for each positive, for the queries that have a negative."""
    against = jnp.broadcast_to(_negatives(sums, temperatures[0]), sums.score.shape)
    counted = (sums.level >= Level.POSITIVE) & (against > LOWEST / 2)
    return Terms(contrast(sums.score / temperatures[0], against, counted), counted, sums.level)


def _negatives(sums: LevelSums, temperature: Float[Array, ""]) -> Float[Array, "queries 1"]:
    return strictly_below(sums, temperature, levels=Level.POSITIVE)[:, Level.POSITIVE, None]
