"""Statistics that say how well the scores of a batch order its documents, by level.

They are computed from the sums of the loss.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from crops_jax.labels import ANCHOR_LEVELS, ANCHORS, RECALL, SCORE_GAP
from crops_jax.losses.level_sums.sums import LOWEST, LevelSums

_SUM_NAMES = (ANCHORS, "recalled_level", "score_gap_sum_level")
LEVEL_SUMS = tuple(f"{name}_{int(level)}" for name in _SUM_NAMES for level in ANCHOR_LEVELS)


class LevelStatistics(NamedTuple):
    """Statistics of the anchors of each level from 1 to 5.

    An anchor is a pair whose query has at least one document of a strictly lower level that is not ignored.

    anchors: the number of anchors.
    recalled: the number of anchors whose score exceeds those of all documents of strictly lower levels.
    score_gap: the sum, over the anchors, of the score minus the greatest score of strictly lower levels.
    """

    anchors: Int32[Array, "5"]
    recalled: Int32[Array, "5"]
    score_gap: Float[Array, "5"]


def level_statistics(sums: LevelSums, counted: Bool[Array, "queries"]) -> LevelStatistics:
    """Returns the statistics of a batch; they have no derivative.

    The strictly lower levels of an anchor are level 0, without the columns that ignore_margin ignores, and the named
    pairs of every level below that of the anchor.

    Args:
      sums: the sums of the batch.
      counted: the mask of the queries whose anchors are counted.
    """
    sums = jax.lax.stop_gradient(sums)
    greatest = [sums.greatest]
    for level in ANCHOR_LEVELS[:-1]:
        greatest_of_level = jnp.where(sums.level == level, sums.score, LOWEST).max(axis=1)
        greatest.append(jnp.maximum(greatest[-1], greatest_of_level))
    below = jnp.take_along_axis(jnp.stack(greatest, axis=1), jnp.maximum(sums.level - 1, 0), axis=1)
    is_anchor = (sums.level >= 1) & (below > LOWEST / 2) & counted[:, None]
    gap = jnp.where(is_anchor, sums.score - below, 0.0)
    return LevelStatistics(
        anchors=_summed_by_level(sums, is_anchor),
        recalled=_summed_by_level(sums, is_anchor & (gap > 0)),
        score_gap=_summed_by_level(sums, gap),
    )


def as_sums(statistics: LevelStatistics) -> dict[str, int | float]:
    """Returns statistics, already on the host, as numbers by their names in LEVEL_SUMS; they are summed over steps."""
    values = [value for values in statistics for value in values.tolist()]
    return dict(zip(LEVEL_SUMS, values, strict=True))


def as_fields(sums: Mapping[str, int | float]) -> dict[str, int | float]:
    """Returns the fields about the levels for a line of metrics.jsonl, from the sums since the previous line.

    anchors_level_l is the number of anchors of level l. recall_in_batch_level_l is the share of these anchors whose
    score exceeds those of all documents of strictly lower levels. score_gap_level_l is the mean of their score minus
    the greatest score of strictly lower levels. A level without anchors has only the first field.
    """
    fields: dict[str, int | float] = {}
    for level in map(int, ANCHOR_LEVELS):
        anchors, recalled, gap = (sums.get(f"{name}_{level}", 0) for name in _SUM_NAMES)
        fields[f"{ANCHORS}_{level}"] = anchors
        if anchors:
            fields[f"{RECALL}_{level}"] = recalled / anchors
            fields[f"{SCORE_GAP}_{level}"] = gap / anchors
    return fields


def _summed_by_level(sums: LevelSums, values: Array) -> Array:
    dtype = jnp.int32 if values.dtype == bool else values.dtype
    return jnp.stack([jnp.where(sums.level == level, values, 0).sum(dtype=dtype) for level in ANCHOR_LEVELS])
