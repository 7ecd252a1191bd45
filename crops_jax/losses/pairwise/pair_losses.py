"""Losses that compare two documents of a query at a time: RankNet, and the pairwise log loss of positives."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from crops_jax.labels import Level, SparseLabels
from crops_jax.losses.arguments import LossInputs, LossOptions
from crops_jax.losses.level_sums.api import Implementation, Split
from crops_jax.losses.pairwise.scored_batch import ScoredBatch, pairwise_loss
from crops_jax.losses.terms import Terms


def ranknet(
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    labels: SparseLabels | Int[Array, "queries docs"],
    *,
    temperature: float | Float[Array, ""],
    implementation: Implementation = "auto",
    query_weights: Float[Array, "queries"] | None = None,
    doc_mask: Bool[Array, "docs"] | None = None,
    options: LossOptions | None = None,
    split: Split | None = None,
) -> Float[Array, ""]:
    """Returns RankNet over all pairs of a query's documents with different levels, divided by the number of pairs.

        loss_ab = log(1 + e^-(z_a - z_b)),   z = s / temperature,   for all a, b with l_a > l_b

    The documents are all real documents that are not ignored, including those of level 0. Each pair is a term of level
    l_a, so that the average over the terms of a batch is the average over its pairs. The loss is that of Burges et al.
    (ICML 2005); Full Stage Learning to Rank (Zheng et al., WWW 2024, arXiv 2405.04844) applies it to the stages of the
    log, which are the levels here.

    Arguments, result and further errors are those of `crops_jax.losses.h_infonce`. "streaming" and "pallas" raise
    ValueError, because pairs need every score.
    """
    inputs = LossInputs(query_embeddings, doc_embeddings, labels, query_weights, doc_mask)
    return pairwise_loss(
        "ranknet",
        ranknet_terms,
        inputs,
        temperature=temperature,
        implementation=implementation,
        options=options,
        split=split,
    )[0]


def pairwise_log(
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    labels: SparseLabels | Int[Array, "queries docs"],
    *,
    temperature: float | Float[Array, ""],
    implementation: Implementation = "auto",
    query_weights: Float[Array, "queries"] | None = None,
    doc_mask: Bool[Array, "docs"] | None = None,
    options: LossOptions | None = None,
    split: Split | None = None,
) -> Float[Array, ""]:
    """Returns the pairwise log loss of positives against negatives, divided by the number of pairs.

        loss_pk = - log sigmoid(z_p - z_k),   z = s / temperature,   for all p with l_p >= 4 and k with 0 <= l_k < 4

    The negatives are hard negatives (levels 1 to 3) and the documents of other queries (level 0). A positive of the
    query is never a negative, also if the record of another query brought it into the batch. This is the loss of ANCE
    (Xiong et al., ICLR 2021, arXiv 2007.00808) and of STAR (Zhan et al., SIGIR 2021, arXiv 2104.08051).

    Arguments, result and errors are those of `ranknet`.
    """
    inputs = LossInputs(query_embeddings, doc_embeddings, labels, query_weights, doc_mask)
    return pairwise_loss(
        "pairwise_log",
        pairwise_log_terms,
        inputs,
        temperature=temperature,
        implementation=implementation,
        options=options,
        split=split,
    )[0]


def ranknet_terms(batch: ScoredBatch, temperature: Float[Array, ""]) -> Terms:
    """Returns one term for each pair; those of one document of level 1 or above are in one position."""
    return pair_terms(batch, temperature)


def pairwise_log_terms(batch: ScoredBatch, temperature: Float[Array, ""]) -> Terms:
    """Returns one term for each pair of a positive and a negative; those of one positive are in one position."""
    level, anchor_level = (
        jnp.where(levels >= 0, (levels >= Level.POSITIVE).astype(jnp.int32), -1)
        for levels in (batch.level, batch.anchor_level)
    )
    terms = pair_terms(batch._replace(level=level, anchor_level=anchor_level), temperature)
    return terms._replace(level=batch.anchor_level)


def pair_terms(batch: ScoredBatch, temperature: Float[Array, ""], *factors: Float[Array, "queries docs"]) -> Terms:
    """Returns, for each anchor a, the mean of w_ab log(1 + e^-(z_a - z_b)) over its pairs, and the number of pairs.

    The pairs of an anchor are those with all documents b of strictly lower levels. The loop takes one anchor of each
    query at a time, so that the memory does not grow with the number of pairs.

    Args:
      batch: the scores and levels.
      temperature: a positive scalar.
      factors: the weight w_ab is the product of |f_a - f_b| over all factors f, and 1 without factors.
    """

    @jax.checkpoint
    def add(_: None, anchor: tuple[Array, ...]) -> tuple[None, tuple[Array, Array]]:
        level, score, *others = anchor
        lower = (batch.level >= 0) & (batch.level < level[:, None])
        loss = jax.nn.softplus((batch.score - score[:, None]) / temperature)
        for factor, of_anchor in zip(factors, others, strict=True):
            loss *= jnp.abs(factor - of_anchor[:, None])
        return None, (jnp.where(lower, loss, 0.0).sum(axis=1), lower.sum(axis=1))

    anchors = (batch.anchor_level, *map(batch.of_anchors, (batch.score, *factors)))
    _, (total, count) = jax.lax.scan(add, None, tuple(part.T for part in anchors))
    return Terms(total.T / jnp.maximum(count.T, 1), count.T, batch.anchor_level)
