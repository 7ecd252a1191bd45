"""The loss that a configuration names, as the trainer computes it."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from crops_jax.config import LossConfig
from crops_jax.labels import SparseLabels
from crops_jax.losses.arguments import LossOptions
from crops_jax.losses.binary_infonce import infonce_terms, multi_positive_infonce_terms
from crops_jax.losses.hierarchical_infonce import h_infonce_terms
from crops_jax.losses.level_statistics import LevelStatistics, level_statistics
from crops_jax.losses.level_sums.api import Split
from crops_jax.losses.level_sums.sums import LevelSums
from crops_jax.losses.listwise import softmax_cross_entropy_terms
from crops_jax.losses.ranking_infonce import rince_formula
from crops_jax.losses.terms import Formula, batch_loss
from crops_jax.models.pooling import unit_norm

_FORMULAS: dict[str, Formula] = {
    "h_infonce": h_infonce_terms,
    "infonce": infonce_terms,
    "multi_positive_infonce": multi_positive_infonce_terms,
    "softmax_cross_entropy": softmax_cross_entropy_terms,
}


def configured_loss(
    config: LossConfig,
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    labels: SparseLabels,
    *,
    temperature: Float[Array, ""],
    query_weights: Float[Array, "queries"],
    doc_mask: Bool[Array, "docs"],
    doc_log_probabilities: Float[Array, "docs"] | None,
    split: Split,
) -> tuple[Float[Array, ""], dict[str, Int32[Array, ""]], LevelStatistics]:
    """The loss of a batch, counters of what it met, and its statistics; arguments as of `crops_jax.losses.h_infonce`.

    With config.matryoshka_dims it is the mean of the losses of the full width and of each number of leading components,
    which are normalised again (Kusupati et al. 2022, arXiv 2205.13147, equation 1, all weights alike). Counters and
    statistics are those of the full width.

    Counter ignored_by_margin, where the configuration has a margin: other queries' documents that it took out. It and
    the statistics are of the queries whose weight is not 0.
    """
    formula = rince_formula(config.rince_form) if config.name == "rince" else _FORMULAS[config.name]
    options = LossOptions(
        normalization=config.normalization,
        level_weights=_five(config.level_weights),
        ignore_margin=config.ignore_margin,
    )

    def of(queries: Array, docs: Array) -> tuple[Array, LevelSums]:
        return batch_loss(
            config.name,
            formula,
            queries,
            docs,
            labels,
            temperatures=_temperatures(config, temperature),
            implementation=config.implementation,
            query_weights=query_weights,
            doc_mask=doc_mask,
            doc_log_probabilities=doc_log_probabilities,
            options=options,
            split=split,
        )

    loss, sums = of(query_embeddings, doc_embeddings)
    if config.matryoshka_dims:
        parts = [
            of(unit_norm(query_embeddings[:, :dim]), unit_norm(doc_embeddings[:, :dim]))[0]
            for dim in config.matryoshka_dims
        ]
        loss = jnp.stack([loss, *parts]).mean()
    counted = query_weights > 0
    counters = {}
    if config.ignore_margin is not None:
        counters["ignored_by_margin"] = jnp.where(counted, sums.ignored, 0).sum(dtype=jnp.int32)
    return loss, counters, level_statistics(sums, counted)


def _temperatures(config: LossConfig, temperature: Float[Array, ""]) -> Float[Array, "..."]:
    if config.name != "rince":
        return temperature
    return temperature * jnp.asarray(config.rince_temperature_factors, jnp.float32)


def _five(values: Any) -> tuple[float, float, float, float, float]:
    one, two, three, four, five = values
    return one, two, three, four, five
