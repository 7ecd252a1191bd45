"""H-InfoNCE (CroPS, arXiv 2511.15443). It contrasts every labelled document with all documents of lower levels."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from crops_jax.labels import SparseLabels
from crops_jax.losses.arguments import LossInputs, LossOptions, validate_temperature
from crops_jax.losses.level_sums.api import Implementation, Split
from crops_jax.losses.level_sums.sums import LOWEST, LevelSums
from crops_jax.losses.terms import Terms, batch_loss, contrast, strictly_below


def h_infonce(
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
    """Returns hierarchical InfoNCE, which contrasts every anchor with all documents of strictly lower levels.

        z_ij = <q_i, d_j> / temperature
        loss_ij = - log [ e^z_ij / ( e^z_ij + sum over k with l_ik < l_ij of e^z_ik ) ]

    An anchor is a pair (i, j) of level l_ij >= 1 whose query has at least one document of a strictly lower level that
    is not ignored. The loss is the average over the anchors, weighted by query_weights. The sum over k contains neither
    ignored documents (level -1) nor documents of the same or a higher level. This is equation 6 of CroPS (arXiv
    2511.15443).

    Args:
      query_embeddings: embeddings in float32, bfloat16 or float16. The loss does not normalise them; scores are plain
        dot products.
      doc_embeddings: embeddings of the same type.
      labels: levels -1 to 5, as SparseLabels or, for "dense" and "auto", as an integer matrix.
      temperature: a positive scalar; the loss does not clip it.
      implementation: "dense" stores the whole score matrix and is the reference; "streaming" is exact too and stores
        only one tile of the matrix at a time; "pallas" uses kernels; "auto" selects one of them (see
        `crops_jax.losses.implementation_that_runs`). An implementation other than "auto" is never replaced by another
        one: it runs, or the loss raises ValueError.
      query_weights: the non-negative weight of each query, 1 by default. No gradient flows into it.
      doc_mask: True for columns that are real documents, False for padding and second copies. By default all columns
        are real documents.
      doc_log_probabilities: the log of the probability that a batch contains the document, for the logQ correction (Yi
        et al., RecSys 2019). It is subtracted from z of level 0, so that the sum over level 0 is an unbiased estimate
        of the sum over the corpus. Pairs whose level is not 0 are not sampled and remain unchanged. No gradient flows
        into it.
      options: level weights, the normalisation, and a margin within which documents of other queries are ignored.
      split: the mesh over which queries and documents are split; "streaming" then computes on the parts. Without it the
        compiler decides about the distribution.

    Returns:
      A float32 scalar, differentiable in both embeddings and in temperature. If the batch has no anchor with a weight
      above 0, the loss is 0 and its gradients are zero. If an embedding or the temperature is not finite, the loss is
      NaN. Products of float32 embeddings have precision HIGHEST; products of narrower types are summed in float32.

    Raises:
      ValueError: shapes or types are not compatible, or the named implementation cannot run on this device.
    """
    validate_temperature("h_infonce", temperature)
    inputs = LossInputs(query_embeddings, doc_embeddings, labels, query_weights, doc_mask, doc_log_probabilities)
    return batch_loss(
        "h_infonce",
        h_infonce_terms,
        inputs,
        temperatures=temperature,
        implementation=implementation,
        options=options,
        split=split,
    )[0]


def h_infonce_terms(sums: LevelSums, temperatures: Float[Array, "1"]) -> Terms:
    """Returns one term for each anchor: softplus(C - z), where C is the logsumexp of all documents of lower levels."""
    temperature = temperatures[0]
    below = strictly_below(sums, temperature)
    against = jnp.take_along_axis(below, jnp.maximum(sums.level, 0), axis=1)
    is_anchor = (sums.level >= 1) & (against > LOWEST / 2)
    return Terms(contrast(sums.score / temperature, against, is_anchor), is_anchor, sums.level)
