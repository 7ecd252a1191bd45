"""Ranking InfoNCE, abbreviated RINCE (Hoffmann et al., AAAI 2022, arXiv 2201.11736)."""

import functools
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from crops_jax.labels import Level, SparseLabels
from crops_jax.losses.arguments import LossInputs, LossOptions
from crops_jax.losses.level_sums.api import Implementation, Split
from crops_jax.losses.level_sums.sums import LOWEST, LevelSums
from crops_jax.losses.terms import Terms, batch_loss, contrast, of_level, strictly_below

RinceForm = Literal["out", "in", "out_in"]
_LEVELS = tuple(int(level) for level in Level if level > 0)


def rince(
    query_embeddings: Float[Array, "queries dim"],
    doc_embeddings: Float[Array, "docs dim"],
    labels: SparseLabels | Int[Array, "queries docs"],
    *,
    temperatures: Float[Array, "5"],
    form: RinceForm = "out",
    implementation: Implementation = "auto",
    query_weights: Float[Array, "queries"] | None = None,
    doc_mask: Bool[Array, "docs"] | None = None,
    doc_log_probabilities: Float[Array, "docs"] | None = None,
    options: LossOptions | None = None,
    split: Split | None = None,
) -> Float[Array, ""]:
    """Returns ranking InfoNCE, which contrasts each level with all strictly lower levels, at a temperature per level.

        out: a term for each document i of level r >= 1, - log [ e^(s_i/t_r) / (e^(s_i/t_r) + B_r) ]
        in:  a term for each level r >= 1 in the row, - log [ P_r / (P_r + B_r) ]
        with P_r the sum of e^(s/t_r) over level r, and B_r the same sum over all documents of levels below r that are
        not ignored

    The form out_in uses the terms of out for the highest level of each row and those of in for its lower levels. Other
    documents of the same level are in the denominator only as a part of P_r. With equal temperatures, out is H-InfoNCE.

    Args:
      temperatures: t_1 to t_5, positive; in the paper, lower levels have greater temperatures.
      form: the form of the terms, "out", "in" or "out_in".
      others: the other arguments, the result and the errors are those of `crops_jax.losses.h_infonce`.
    """
    temperatures = jnp.asarray(temperatures, jnp.float32)
    if temperatures.shape != (len(_LEVELS),):
        raise ValueError(f"rince: temperatures must be [{len(_LEVELS)}], found {temperatures.shape}")
    inputs = LossInputs(query_embeddings, doc_embeddings, labels, query_weights, doc_mask, doc_log_probabilities)
    return batch_loss(
        "rince",
        rince_formula(form),
        inputs,
        temperatures=temperatures,
        implementation=implementation,
        options=options,
        split=split,
    )[0]


def rince_formula(form: RinceForm):
    """Returns the function that computes the terms of a form. Raises ValueError for an unknown form."""
    if form not in ("out", "in", "out_in"):
        raise ValueError(f"rince: form must be 'out', 'in' or 'out_in', found {form!r}")
    return functools.partial(_terms, form=form)


def _terms(sums: LevelSums, temperatures: Float[Array, "5"], *, form: RinceForm) -> Terms:
    out_terms, in_terms = _out_terms(sums, temperatures), _in_terms(sums, temperatures)
    if form == "out":
        return out_terms
    if form == "in":
        return in_terms
    highest = sums.level.max(axis=1, keepdims=True)
    parts = (
        out_terms._replace(counted=out_terms.counted & (out_terms.level == highest)),
        in_terms._replace(counted=in_terms.counted & (in_terms.level < highest)),
    )
    return Terms(*(jnp.concatenate(pair, axis=1) for pair in zip(*parts)))


def _out_terms(sums: LevelSums, temperatures: Float[Array, "5"]) -> Terms:
    below = jnp.stack(_lower_level_sums(sums, temperatures), axis=1)
    level_index = jnp.maximum(sums.level - 1, 0)
    against = jnp.take_along_axis(below, level_index, axis=1)
    counted = (sums.level >= 1) & (against > LOWEST / 2)
    return Terms(contrast(sums.score / temperatures[level_index], against, counted), counted, sums.level)


def _in_terms(sums: LevelSums, temperatures: Float[Array, "5"]) -> Terms:
    against = jnp.stack(_lower_level_sums(sums, temperatures), axis=1)
    chosen = jnp.stack([of_level(sums, temperatures[r - 1], r) for r in _LEVELS], axis=1)
    counted = (chosen > LOWEST / 2) & (against > LOWEST / 2)
    level = jnp.broadcast_to(jnp.asarray(_LEVELS, jnp.int32)[None, :], counted.shape)
    return Terms(contrast(chosen, against, counted), counted, level)


def _lower_level_sums(sums: LevelSums, temperatures: Float[Array, "5"]) -> list[Float[Array, "queries"]]:
    """Returns the logarithms of B_r for r = 1 to 5."""
    return [strictly_below(sums, temperatures[r - 1], which=r - 1, levels=r)[:, r] for r in _LEVELS]
