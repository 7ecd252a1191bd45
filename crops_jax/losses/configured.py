"""The loss that a configuration names, as the trainer computes it."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int32

from crops_jax.config import LossConfig
from crops_jax.labels import SparseLabels
from crops_jax.losses.arguments import LossInputs, LossOptions, ScoreInputs
from crops_jax.losses.binary_infonce import infonce_terms, multi_positive_infonce_terms
from crops_jax.losses.distillation import distillation_terms
from crops_jax.losses.hierarchical_infonce import h_infonce_terms
from crops_jax.losses.level_statistics import LevelStatistics, level_statistics
from crops_jax.losses.level_sums.api import Split, implementation_that_runs
from crops_jax.losses.level_sums.sums import LevelSums
from crops_jax.losses.listwise import softmax_cross_entropy_terms
from crops_jax.losses.pairwise.noise_contrast import binary_nce_terms
from crops_jax.losses.pairwise.pair_losses import pairwise_log_terms, ranknet_terms
from crops_jax.losses.pairwise.rank_weights import lambda_formula
from crops_jax.losses.pairwise.scored_batch import PairFormula, pairwise_loss, require_dense
from crops_jax.losses.ranking_infonce import rince_formula
from crops_jax.losses.terms import Formula, batch_loss, mean_of_terms
from crops_jax.models.pooling import unit_norm

_FORMULAS: dict[str, Formula] = {
    "h_infonce": h_infonce_terms,
    "infonce": infonce_terms,
    "multi_positive_infonce": multi_positive_infonce_terms,
    "softmax_cross_entropy": softmax_cross_entropy_terms,
}
_PAIR_FORMULAS: dict[str, PairFormula] = {
    "ranknet": ranknet_terms,
    "lambda_mrr": lambda_formula("mrr"),
    "lambda_ndcg": lambda_formula("ndcg"),
    "pairwise_log": pairwise_log_terms,
    "binary_nce": binary_nce_terms,
}


def pair_formula(name: str) -> PairFormula:
    """Returns the formula of a loss over pairs of documents. Raises KeyError for the name of another loss."""
    return _PAIR_FORMULAS[name]


def configured_implementation(
    config: LossConfig, labels: SparseLabels | Int[Array, "queries docs"], *, queries: int, docs: int
) -> Literal["dense", "streaming", "pallas"]:
    """Returns the implementation that the configured loss runs. Raises ValueError when the named one cannot."""
    if config.name in _PAIR_FORMULAS:
        require_dense(config.name, config.implementation)
        return "dense"
    return implementation_that_runs(config.implementation, labels, queries=queries, docs=docs)


class ConfiguredLoss(NamedTuple):
    """The loss of a batch, its counters and its statistics.

    distillation: the distillation loss without its weight; None if the configuration has none. `loss` is the loss that
      the configuration names plus the weight times this.
    """

    loss: Float[Array, ""]
    counters: dict[str, Int32[Array, ""]]
    levels: LevelStatistics
    distillation: Float[Array, ""] | None


def configured_loss(
    config: LossConfig,
    inputs: LossInputs | ScoreInputs,
    *,
    temperature: Float[Array, ""],
    split: Split,
) -> ConfiguredLoss:
    """Returns the loss of a batch, its counters and its statistics.

    With config.matryoshka_dims the loss is the mean of several losses: that of the full width, and one for each number
    of leading components, which are normalised again (Kusupati et al. 2022, arXiv 2205.13147, equation 1, with equal
    weights). Counters and statistics are those of the full width. The distillation loss is such a mean too.

    If the configuration has a margin, the counter ignored_by_margin is the number of documents of other queries that
    the margin ignores. This counter and the statistics include only queries whose weight is not 0.

    Args:
      config: the loss section of the configuration.
      inputs: the batch; query_weights must be present, and teacher_scores if the configuration distils them. The labels
        must be SparseLabels. A score matrix has one implementation, the dense one, and no matryoshka_dims.
      temperature: a positive scalar.
      split: the mesh over which queries and documents are split.
    """

    def compute(inputs: LossInputs | ScoreInputs) -> tuple[Array, Array | None, LevelSums]:
        loss, sums = _loss_and_sums(config, inputs, temperature, split)
        return loss, _distillation(config, sums, inputs, temperature), sums

    widths = [inputs, *(_leading_components(inputs, dim) for dim in config.matryoshka_dims)]
    losses, distilled, (sums, *_) = zip(*map(compute, widths), strict=True)
    loss, distillation = _mean(losses), None
    if config.distillation != "none":
        distillation = _mean(distilled)
        loss += config.distillation_weight * distillation
    assert inputs.query_weights is not None
    counted = inputs.query_weights > 0
    counters = {}
    if config.ignore_margin is not None:
        counters["ignored_by_margin"] = jnp.where(counted, sums.ignored, 0).sum(dtype=jnp.int32)
    return ConfiguredLoss(loss, counters, level_statistics(sums, counted), distillation)


def _mean(parts: Sequence[Float[Array, ""]]) -> Float[Array, ""]:
    return parts[0] if len(parts) == 1 else jnp.stack(parts).mean()


def _loss_and_sums(
    config: LossConfig, inputs: LossInputs | ScoreInputs, temperature: Float[Array, ""], split: Split
) -> tuple[Float[Array, ""], LevelSums]:
    """Returns the loss of scores, or of embeddings of one width, and the sums for the statistics."""
    given: dict[str, Any] = {
        "implementation": config.implementation,
        "options": LossOptions(
            normalization=config.normalization,
            level_weights=_as_five_weights(config.level_weights),
            ignore_margin=config.ignore_margin,
        ),
        "split": split,
    }
    if config.name in _PAIR_FORMULAS:
        return pairwise_loss(config.name, _PAIR_FORMULAS[config.name], inputs, temperature=temperature, **given)
    formula = rince_formula(config.rince_form) if config.name == "rince" else _FORMULAS[config.name]
    return batch_loss(config.name, formula, inputs, temperatures=_temperatures(config, temperature), **given)


def _distillation(
    config: LossConfig, sums: LevelSums, inputs: LossInputs | ScoreInputs, temperature: Float[Array, ""]
) -> Float[Array, ""] | None:
    """Returns the distillation loss, from the sums of the loss it is added to; None if the configuration has none."""
    if config.distillation == "none":
        return None
    assert inputs.teacher_scores is not None
    terms = distillation_terms(
        config.distillation,
        sums,
        inputs.teacher_scores,
        temperature=temperature,
        teacher_temperature=config.teacher_temperature,
    )
    return mean_of_terms(terms, inputs, temperature[None], LossOptions(normalization=config.normalization))


def _leading_components(inputs: LossInputs | ScoreInputs, dim: int) -> LossInputs:
    """Returns the batch with only the first `dim` components of its embeddings, normalised again."""
    assert isinstance(inputs, LossInputs)  # the configuration refuses matryoshka_dims for a score matrix
    return inputs._replace(
        query_embeddings=unit_norm(inputs.query_embeddings[:, :dim]),
        doc_embeddings=unit_norm(inputs.doc_embeddings[:, :dim]),
    )


def _temperatures(config: LossConfig, temperature: Float[Array, ""]) -> Float[Array, "..."]:
    if config.name != "rince":
        return temperature
    return temperature * jnp.asarray(config.rince_temperature_factors, jnp.float32)


def _as_five_weights(weights: Any) -> tuple[float, float, float, float, float]:
    first, second, third, fourth, fifth = weights
    return first, second, third, fourth, fifth
