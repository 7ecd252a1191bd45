"""The binary form of noise-contrastive estimation (NCE), which classifies each pair as positive or as noise."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from crops_jax.labels import Level, SparseLabels
from crops_jax.losses.arguments import LossInputs, LossOptions
from crops_jax.losses.level_sums.api import Implementation, Split
from crops_jax.losses.pairwise.scored_batch import ScoredBatch, pairwise_loss
from crops_jax.losses.terms import Terms


def binary_nce(
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
    """Returns binary NCE, the sigmoid cross-entropy of each positive and of the negatives of its query.

        loss_p = - log sigmoid(z_p - c_p) - sum over negatives k of log sigmoid(c_k - z_k),   z = s / temperature

    There is one term for each positive p (level 4 or 5) of a query with a negative, and the loss is the average over
    them. The negatives are all real documents below level 4 that are not ignored.

    The constant c_j is the log of the expected number of copies of document j among the negatives, under the noise
    distribution. Without doc_log_probabilities it is log K for every document, where K is the number of negatives of
    the query; e^z then estimates the ratio p(d | q) / p_noise(d). With doc_log_probabilities, c_j is the value of
    document j, for positives too, and e^z estimates p(d | q). The loss is that of Gutmann and Hyvarinen (AISTATS 2010),
    the binary objective of Ma and Collins (EMNLP 2018, arXiv 1809.01812).

    Arguments, result and errors are those of `crops_jax.losses.ranknet`; doc_log_probabilities is that of
    `crops_jax.losses.h_infonce`.
    """
    inputs = LossInputs(query_embeddings, doc_embeddings, labels, query_weights, doc_mask, doc_log_probabilities)
    return pairwise_loss(
        "binary_nce",
        binary_nce_terms,
        inputs,
        temperature=temperature,
        implementation=implementation,
        options=options,
        split=split,
    )[0]


def binary_nce_terms(batch: ScoredBatch, temperature: Float[Array, ""]) -> Terms:
    """Returns one term for each positive of a query that has a negative."""
    is_negative = (batch.level >= 0) & (batch.level < Level.POSITIVE)
    count = is_negative.sum(axis=1, keepdims=True)
    if batch.log_probability is None:
        expected = jnp.broadcast_to(jnp.log(jnp.maximum(count, 1).astype(jnp.float32)), batch.score.shape)
    else:
        expected = jnp.broadcast_to(batch.log_probability[None, :], batch.score.shape)
    logit = batch.score / temperature - expected
    negatives = jnp.where(is_negative, jax.nn.softplus(logit), 0.0).sum(axis=1, keepdims=True)
    counted = (batch.anchor_level >= Level.POSITIVE) & (count > 0)
    loss = jax.nn.softplus(-batch.of_anchors(logit)) + negatives
    return Terms(jnp.where(counted, loss, 0.0), counted, batch.anchor_level)
