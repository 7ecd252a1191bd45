"""H-InfoNCE (CroPS, arXiv 2511.15443): every document against all documents of strictly lower levels."""

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
    """Hierarchical InfoNCE: every anchor against all documents of strictly lower levels.

        z_ij = <q_i, d_j> / temperature
        loss_ij = - log [ e^z_ij / ( e^z_ij + sum over k with l_ik < l_ij of e^z_ik ) ]

    averaged over the anchors, weighted by query_weights: pairs of level l_ij >= 1 with at least one unignored
    document of a strictly lower level. Documents of the same or a higher level and ignored ones (level -1) enter
    neither the sum nor the count. Equation 6 of CroPS (arXiv 2511.15443).

    Args:
      query_embeddings: float32, bfloat16 or float16; nothing is normalised here, the scores are plain dot products.
      doc_embeddings: of the same type.
      labels: levels -1 to 5, as SparseLabels or, for "dense" and "auto", as an integer matrix.
      temperature: positive scalar, never clipped here.
      implementation: "dense" writes the score matrix out and is the reference; "streaming" is exact too and never
        holds more than a tile of it; "pallas" is a kernel; "auto" takes the one that fits (see
        `crops_jax.losses.implementation_that_runs`). One that is named runs or raises, and never another one in its
        place.
      query_weights: non-negative weight of each query, 1 by default. No gradient flows into it.
      doc_mask: True where a column is a real document; padding and second copies are False. All real by default.
      doc_log_probabilities: logQ correction (Yi et al., RecSys 2019): log of the probability that a batch holds the
        document, subtracted from z of level 0, whose sum then estimates that over the corpus without bias. Named
        pairs are not sampled and stay as they are. No gradient flows into it.
      options: level weights, another normalisation, and a margin within which other queries' documents are ignored.
      split: the mesh that queries and documents are split over, which "streaming" then works on in parts; without
        it, the compiler decides.

    Returns:
      float32 scalar, differentiable in both embeddings and in temperature. Without anchors (or all of weight 0) it
      is 0 with zero gradients; embeddings or a temperature that are not finite give NaN. float32 embeddings are
      multiplied with precision HIGHEST, narrower ones are summed in float32.

    Raises:
      ValueError: shapes or types do not fit each other, or the named implementation cannot run here.
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
    """One term for each anchor: softplus(C - z), C the logsumexp of everything below its level."""
    temperature = temperatures[0]
    below = strictly_below(sums, temperature)
    against = jnp.take_along_axis(below, jnp.maximum(sums.level, 0), axis=1)
    is_anchor = (sums.level >= 1) & (against > LOWEST / 2)
    return Terms(contrast(sums.score / temperature, against, is_anchor), is_anchor, sums.level)
