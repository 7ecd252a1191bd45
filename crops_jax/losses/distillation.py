"""Distillation of the scores of a teacher, the relevance discriminator (theta), into the scores of a dual encoder.

Both losses compare the logit of theta, t = log(theta / (1 - theta)), with the encoder's z = score / temperature, over
the scored documents of a query: those that are labelled, real, and have a score of the teacher.

Theta is a calibrated probability. Its logit is distilled, because z is a logit too: both losses compare differences
within a query, and a difference of logits is the logarithm of a ratio of odds, of any size, as a difference of z is.
Differences of probabilities lie in [-1, 1], and a softmax over them would be nearly uniform: it would hardly tell a
theta of .01 from one of .1. A probability outside [1e-4, 1 - 1e-4] counts as that limit, because no calibration set is
large enough to tell such probabilities apart.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from crops_jax.labels import SparseLabels
from crops_jax.losses.arguments import LossInputs, LossOptions, validate_temperature
from crops_jax.losses.level_sums.api import Implementation, Split
from crops_jax.losses.level_sums.sums import LOWEST, LevelSums
from crops_jax.losses.terms import Terms, batch_loss

Form = Literal["kl", "margin_mse"]

_LEAST_PROBABILITY = 1e-4

_Formula = Callable[
    [Float[Array, "queries k"], Float[Array, "queries k"], Bool[Array, "queries k"]],
    tuple[Float[Array, "queries"], Int[Array, "queries"]],
]


def distillation_kl(
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    labels: SparseLabels | Int[Array, "queries docs"],
    teacher_scores: Float[Array, "queries k"],
    *,
    temperature: float | Float[Array, ""],
    teacher_temperature: float = 1.0,
    implementation: Implementation = "auto",
    query_weights: Float[Array, "queries"] | None = None,
    doc_mask: Bool[Array, "docs"] | None = None,
    options: LossOptions | None = None,
    split: Split | None = None,
) -> Float[Array, ""]:
    """Returns the KL divergence of the encoder's distribution over a query's scored documents from the teacher's.

        p_j = e^(t_j / T) / sum over k of e^(t_k / T),   t_j = log(theta_j / (1 - theta_j))
        q_j = e^z_j / sum over k of e^z_k,               z_j = <query, d_j> / temperature
        loss_i = sum over j of p_j log(p_j / q_j)

    The sums are over the scored documents of the query. The loss is the average over the queries with at least two of
    them, weighted by query_weights. It is the distillation of Hinton et al. (2015, arXiv 1503.02531) over the documents
    of a query, as in TCT-ColBERT (Lin et al., RepL4NLP 2021, arXiv 2010.11386). Teacher and encoder have different
    temperatures, so the factor T^2 of Hinton et al. is not applied.

    Args:
      teacher_scores: theta of the pairs of `labels`, in [0, 1]; NaN for a pair that the teacher has not scored. It has
        the shape of labels.level, or that of the label matrix. No gradient flows into it.
      teacher_temperature: T, positive; above 1 it makes the distribution of the teacher flatter.
      options: level weights other than 1 raise ValueError, because a query's term belongs to no level.
      others: the other arguments, the result and further errors are those of `crops_jax.losses.h_infonce`.
    """
    given = LossInputs(query_embeddings, doc_embeddings, labels, query_weights, doc_mask, None, teacher_scores)
    more = {"implementation": implementation, "options": options, "split": split}
    return _distilled("kl", given, temperature, teacher_temperature, **more)


def margin_mse(
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    labels: SparseLabels | Int[Array, "queries docs"],
    teacher_scores: Float[Array, "queries k"],
    *,
    temperature: float | Float[Array, ""],
    teacher_temperature: float = 1.0,
    implementation: Implementation = "auto",
    query_weights: Float[Array, "queries"] | None = None,
    doc_mask: Bool[Array, "docs"] | None = None,
    options: LossOptions | None = None,
    split: Split | None = None,
) -> Float[Array, ""]:
    """Returns the mean squared difference of the margins of teacher and encoder, over all pairs of scored documents.

        loss_ab = ( (z_a - z_b) - (t_a - t_b) / T )^2
        t_j = log(theta_j / (1 - theta_j)),   z_j = <query, d_j> / temperature

    The loss is the average over the pairs a, b of two scored documents of a query, each pair once, weighted by
    query_weights. It is Margin-MSE (Hofstätter et al. 2020, arXiv 2010.02666), whose pairs are a relevant and an
    irrelevant document. Here two relevant or two irrelevant documents are a pair too, because theta orders them.
    The scores of the paper are dot products without a limit. Those of unit vectors lie in [-1, 1], so they are divided
    by the temperature.

    With e = z - t / T and its mean m over the n scored documents of a query, the sum over its pairs is
    n * sum over a of (e_a - m)^2. So memory and time are O(queries * k).

    Arguments, result and errors are those of `distillation_kl`.
    """
    given = LossInputs(query_embeddings, doc_embeddings, labels, query_weights, doc_mask, None, teacher_scores)
    more = {"implementation": implementation, "options": options, "split": split}
    return _distilled("margin_mse", given, temperature, teacher_temperature, **more)


def distillation_terms(
    form: Form,
    sums: LevelSums,
    teacher_scores: Float[Array, "queries k"],
    *,
    temperature: Float[Array, ""],
    teacher_temperature: float,
) -> Terms:
    """Returns the terms of a distillation loss: one of a query for "kl", and one of each pair for "margin_mse".

    Args:
      form: the name of the loss.
      sums: the sums of the batch; only the scores and levels of the named pairs are used.
      teacher_scores: theta of the named pairs; NaN if there is none.
      temperature: the temperature of the encoder.
      teacher_temperature: that of the teacher, positive.
    """
    teacher_scores = jax.lax.stop_gradient(teacher_scores.astype(jnp.float32))
    if teacher_scores.shape[1] == 0:  # labels without entries, for which the sums have one column without a pair
        teacher_scores = jnp.full(sums.level.shape, jnp.nan)
    # A comparison with NaN is False.
    scored = (sums.level >= 1) & (teacher_scores >= 0)
    probability = jnp.clip(jnp.where(scored, teacher_scores, 0.5), _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    target = (jnp.log(probability) - jnp.log1p(-probability)) / teacher_temperature
    z = jnp.where(scored, sums.score / temperature, 0.0)
    loss, counted = _FORMULAS[form](z, target, scored)
    return Terms(loss[:, None], counted[:, None], sums.level.max(axis=1, keepdims=True))


def _kl_terms(
    z: Float[Array, "queries k"], target: Float[Array, "queries k"], scored: Bool[Array, "queries k"]
) -> tuple[Float[Array, "queries"], Int[Array, "queries"]]:
    """Returns the divergence of each query, and 1 for the queries that have one."""
    log_p, log_q = (jax.nn.log_softmax(jnp.where(scored, values, LOWEST), axis=1) for values in (target, z))
    difference = jnp.where(scored, log_p - log_q, 0.0)
    counted = scored.sum(axis=1) >= 2
    divergence = (jnp.where(scored, jnp.exp(log_p), 0.0) * difference).sum(axis=1)
    return jnp.where(counted, divergence, 0.0), counted.astype(jnp.int32)


def _margin_terms(
    z: Float[Array, "queries k"], target: Float[Array, "queries k"], scored: Bool[Array, "queries k"]
) -> tuple[Float[Array, "queries"], Int[Array, "queries"]]:
    """Returns the mean over the pairs of each query, and the number of its pairs."""
    count = scored.sum(axis=1, dtype=jnp.int32)
    error = jnp.where(scored, z - target, 0.0)
    mean = error.sum(axis=1, keepdims=True) / jnp.maximum(count, 1)[:, None]
    squares = (jnp.where(scored, error - mean, 0.0) ** 2).sum(axis=1)
    return squares * 2 / jnp.maximum(count - 1, 1), count * (count - 1) // 2


_FORMULAS: dict[str, _Formula] = {"kl": _kl_terms, "margin_mse": _margin_terms}


def _distilled(
    form: Form,
    inputs: LossInputs,
    temperature: float | Float[Array, ""],
    teacher_temperature: float,
    *,
    implementation: Implementation,
    options: LossOptions | None,
    split: Split | None,
) -> Float[Array, ""]:
    name = "distillation_kl" if form == "kl" else form
    validate_temperature(name, temperature)
    if not teacher_temperature > 0:
        raise ValueError(f"{name}: teacher_temperature must be positive, found {teacher_temperature}")
    if options is not None and any(weight != 1 for weight in options.level_weights):
        raise ValueError(
            f"{name}: its terms belong to no level, found level_weights {options.level_weights}; leave them at 1"
        )

    def formula(sums: LevelSums, temperatures: Float[Array, "1"]) -> Terms:
        assert inputs.teacher_scores is not None  # an argument of both losses
        return distillation_terms(
            form, sums, inputs.teacher_scores, temperature=temperatures[0], teacher_temperature=teacher_temperature
        )

    return batch_loss(
        name,
        formula,
        inputs,
        temperatures=temperature,
        implementation=implementation,
        options=options,
        split=split,
    )[0]
