"""LambdaLoss: the weight of a pair is the change of a ranking metric if its two documents exchange their ranks."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32

from crops_jax.labels import SparseLabels
from crops_jax.losses.arguments import LossInputs, LossOptions
from crops_jax.losses.level_sums.api import Implementation, Split
from crops_jax.losses.pairwise.pair_losses import pair_terms
from crops_jax.losses.pairwise.scored_batch import PairFormula, ScoredBatch, pairwise_loss
from crops_jax.losses.terms import Terms

Metric = Literal["mrr", "ndcg"]


def lambda_loss(
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    labels: SparseLabels | Int[Array, "queries docs"],
    *,
    metric: Metric,
    temperature: float | Float[Array, ""],
    implementation: Implementation = "auto",
    query_weights: Float[Array, "queries"] | None = None,
    doc_mask: Bool[Array, "docs"] | None = None,
    options: LossOptions | None = None,
    split: Split | None = None,
) -> Float[Array, ""]:
    """Returns LambdaLoss over all pairs of a query's documents with different levels, divided by the number of pairs.

        loss_ab = w_ab log(1 + e^-(z_a - z_b)),   z = s / temperature,   for all a, b with l_a > l_b
        "mrr":   w_ab = |1 / r_a - 1 / r_b|
        "ndcg":  w_ab = |g_a - g_b| |1 / log2(1 + r_a) - 1 / log2(1 + r_b)| / (DCG of the best order),  g = 2^l - 1

    The rank r, from 1, is by the current scores among all real documents of the batch that are not ignored. No gradient
    flows through ranks. Of documents with equal scores the one of the lower level has the better rank, so that the
    order of a tie is the worse one. Each pair is a term of level l_a. The weights are those of LambdaRank (Burges,
    MSR-TR-2010-82) and LambdaLoss (Wang et al., CIKM 2018); "mrr" is the form of ADORE (Zhan et al., SIGIR 2021, arXiv
    2104.08051).

    Arguments, result and further errors are those of `crops_jax.losses.ranknet`. Another metric raises ValueError.
    """
    inputs = LossInputs(query_embeddings, doc_embeddings, labels, query_weights, doc_mask)
    return pairwise_loss(
        f"lambda_{metric}",
        lambda_formula(metric),
        inputs,
        temperature=temperature,
        implementation=implementation,
        options=options,
        split=split,
    )[0]


def lambda_formula(metric: Metric) -> PairFormula:
    """Returns the formula for the terms of a metric. Raises ValueError if the metric is unknown."""
    if metric not in ("mrr", "ndcg"):
        raise ValueError(f"lambda_loss: metric must be 'mrr' or 'ndcg', found {metric!r}")
    return functools.partial(_terms, metric=metric)


def ranks(batch: ScoredBatch) -> Int32[Array, "queries docs"]:
    """Returns the rank of each document by its score, from 1, without derivative; ignored documents are last.

    Documents with equal scores are ordered by level, the lowest first, and then by column.
    """
    counts = batch.level >= 0
    descending = jnp.where(counts, -jax.lax.stop_gradient(batch.score), jnp.inf)
    order = jnp.lexsort((batch.level, descending, ~counts), axis=-1)
    return jnp.argsort(order, axis=-1).astype(jnp.int32) + 1


def _terms(batch: ScoredBatch, temperature: Float[Array, ""], *, metric: Metric) -> Terms:
    rank = ranks(batch).astype(jnp.float32)
    if metric == "mrr":
        return pair_terms(batch, temperature, 1 / rank)
    return pair_terms(batch, temperature, 1 / jnp.log2(1 + rank), _gains(batch))


def _gains(batch: ScoredBatch) -> Float[Array, "queries docs"]:
    """Returns 2^level - 1 of each document, divided by the DCG of the best order of the query."""
    named = jnp.sort(_gain(batch.anchor_level), axis=1, descending=True)
    discount = 1 / jnp.log2(2 + jnp.arange(named.shape[1], dtype=jnp.float32))
    best = (named * discount[None, :]).sum(axis=1, keepdims=True)
    return _gain(batch.level) / jnp.where(best > 0, best, 1.0)


def _gain(level: Int32[Array, "..."]) -> Float[Array, "..."]:
    return jnp.exp2(jnp.maximum(level, 0).astype(jnp.float32)) - 1
