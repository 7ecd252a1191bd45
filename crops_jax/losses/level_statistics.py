"""Statistics of how well a batch's scores order its documents, by level, computed from the sums of the loss."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from crops_jax.labels import Level
from crops_jax.losses.level_sums.sums import LOWEST, LevelSums

ANCHOR_LEVELS = tuple(Level)[1:]

ANCHORS, RECALL, SCORE_GAP = "anchors_level", "recall_in_batch_level", "score_gap_level"
"""The beginnings of the fields of metrics.jsonl, before the number of the level."""

_SUM_NAMES = (ANCHORS, "recalled_level", "score_gap_sum_level")
LEVEL_SUMS = tuple(f"{name}_{int(level)}" for name in _SUM_NAMES for level in ANCHOR_LEVELS)


class LevelStatistics(NamedTuple):
    """Statistics of the anchors of levels 1 to 5: pairs with at least one unignored document strictly below them.

    anchors: how many there are.
    recalled: how many of them score above everything strictly below.
    score_gap: sum of their score less the greatest one strictly below.
    """

    anchors: Int32[Array, "5"]
    recalled: Int32[Array, "5"]
    score_gap: Float[Array, "5"]


def level_statistics(sums: LevelSums, counted: Bool[Array, "queries"]) -> LevelStatistics:
    """The statistics of a batch, without derivative.

    "Strictly below" is level 0, without what ignore_margin took out, and every named level under the anchor's own.

    Args:
      counted: queries whose anchors count.
    """
    sums = jax.lax.stop_gradient(sums)
    greatest = [sums.greatest]
    for level in ANCHOR_LEVELS[:-1]:
        here = jnp.where(sums.level == level, sums.score, LOWEST).max(axis=1)
        greatest.append(jnp.maximum(greatest[-1], here))
    below = jnp.take_along_axis(jnp.stack(greatest, axis=1), jnp.maximum(sums.level - 1, 0), axis=1)
    is_anchor = (sums.level >= 1) & (below > LOWEST / 2) & counted[:, None]
    gap = jnp.where(is_anchor, sums.score - below, 0.0)
    return LevelStatistics(
        anchors=_by_level(sums, is_anchor),
        recalled=_by_level(sums, is_anchor & (gap > 0)),
        score_gap=_by_level(sums, gap),
    )


def as_sums(statistics: LevelStatistics) -> dict[str, int | float]:
    """Statistics on the host as numbers that are added up over steps, by name: those of LEVEL_SUMS."""
    values = [value for values in statistics for value in values.tolist()]
    return dict(zip(LEVEL_SUMS, values, strict=True))


def as_fields(sums: Mapping[str, int | float]) -> dict[str, int | float]:
    """Returns the fields of a line of metrics.jsonl about the levels, from the sums since the line before.

    anchors_level_l for each level. Where there are anchors, recall_in_batch_level_l is the share of them that scores
    above everything strictly below, and score_gap_level_l the mean of their score less the greatest one strictly
    below; of a level without anchors both are left out.
    """
    fields: dict[str, int | float] = {}
    for level in map(int, ANCHOR_LEVELS):
        anchors, recalled, gap = (sums.get(f"{name}_{level}", 0) for name in _SUM_NAMES)
        fields[f"{ANCHORS}_{level}"] = anchors
        if anchors:
            fields[f"{RECALL}_{level}"] = recalled / anchors
            fields[f"{SCORE_GAP}_{level}"] = gap / anchors
    return fields


def _by_level(sums: LevelSums, values: Array) -> Array:
    dtype = jnp.int32 if values.dtype == bool else values.dtype
    return jnp.stack([jnp.where(sums.level == level, values, 0).sum(dtype=dtype) for level in ANCHOR_LEVELS])
