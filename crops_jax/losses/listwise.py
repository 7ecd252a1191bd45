"""Softmax cross-entropy over all documents of a query, with the labels as a distribution."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from crops_jax.labels import SparseLabels
from crops_jax.losses.arguments import LossInputs, LossOptions, validate_temperature
from crops_jax.losses.level_sums.api import Implementation, Split
from crops_jax.losses.level_sums.sums import LOWEST, LevelSums
from crops_jax.losses.terms import Terms, batch_loss


def softmax_cross_entropy(
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
    """Returns the softmax cross-entropy (ListNet's top-one form, Cao et al., ICML 2007) with levels as gains.

        loss_i = - sum over j of y_ij log [ e^z_ij / sum over k of e^z_ik ],   y_ij = l_ij / sum over k of l_ik

    The sums are over all real documents that are not ignored. The loss is the average over the queries with a document
    above level 0. Each of these queries has one term, which belongs to no level; level weights other than 1 therefore
    raise ValueError. Arguments, result and further errors are those of `crops_jax.losses.h_infonce`.
    """
    validate_temperature("softmax_cross_entropy", temperature)
    if options is not None and any(weight != 1 for weight in options.level_weights):
        raise ValueError(
            f"softmax_cross_entropy: its terms belong to no level, found level_weights {options.level_weights}; "
            "leave them at 1"
        )
    inputs = LossInputs(query_embeddings, doc_embeddings, labels, query_weights, doc_mask, doc_log_probabilities)
    return batch_loss(
        "softmax_cross_entropy",
        softmax_cross_entropy_terms,
        inputs,
        temperatures=temperature,
        implementation=implementation,
        options=options,
        split=split,
    )[0]


def softmax_cross_entropy_terms(sums: LevelSums, temperatures: Float[Array, "1"]) -> Terms:
    """Returns one term for each query with a labelled document."""
    gain = jnp.maximum(sums.level, 0)
    z = sums.score / temperatures[0]
    has_label = gain.any(axis=1, keepdims=True)
    named = jnp.where(gain > 0, z, LOWEST)
    total = jax.nn.logsumexp(jnp.concatenate([sums.level_0, named], axis=1), axis=1, keepdims=True)
    share = gain / jnp.where(has_label, gain.sum(axis=1, keepdims=True), 1)
    # The shares of a query add up to 1, so the differences total - z are weighted pair by pair. They are small, unlike
    # total and the scores.
    loss = (share * jnp.where(gain > 0, total - z, 0.0)).sum(axis=1, keepdims=True)
    return Terms(jnp.where(has_label, loss, 0.0), has_label, gain.max(axis=1, keepdims=True))
