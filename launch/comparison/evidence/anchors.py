"""The anchors of the loss by level, from the log of a run.

An anchor is a document of a query whose score the loss raises above those of all documents of strictly lower levels.
The anchors of levels 1 to 3 are no positives: they order the funnel alone. Anchors are counted, whatever weight
`loss.level_weights` gives to their level.
"""

from collections.abc import Mapping
from pathlib import Path

from crops_jax.labels import ANCHOR_LEVELS, ANCHORS
from crops_jax.runs.log import read_metrics

FIGURE = "anchors_per_query_level"
"""The prefix of the figures of a cell; the number of the level follows it."""
_POSITIVE = (4, 5)


def anchors_per_query(run: Path, queries_per_batch: int) -> dict[str, float]:
    """Returns the mean number of anchors of each level for a query in a step; nothing if the run has no such log.

    Args:
      run: the directory of the run.
      queries_per_batch: the number of queries in a step.
    """
    lines = [line for line in read_metrics(run) if f"{ANCHORS}_1" in line]
    if not lines:
        return {}
    queries = max(line["step"] for line in lines) * queries_per_batch
    levels = [int(level) for level in ANCHOR_LEVELS]
    return {
        f"{FIGURE}_{level}": round(sum(line[f"{ANCHORS}_{level}"] for line in lines) / queries, 5) for level in levels
    }


def positives_per_query(figures: Mapping[str, float | None]) -> float | None:
    """Returns the mean number of positive anchors (levels 4 and 5) of a query, from the figures of cells."""
    found = [figures.get(f"{FIGURE}_{level}") for level in _POSITIVE]
    return None if None in found else sum(one for one in found if one is not None)


def share_below_positives(figures: Mapping[str, float | None]) -> float | None:
    """Returns the share of the anchors that are of levels 1 to 3; None if the anchors are not known."""
    found = [figures.get(f"{FIGURE}_{int(level)}") for level in ANCHOR_LEVELS]
    known = [one for one in found if one is not None]
    if len(known) < len(found) or not sum(known):
        return None
    return sum(known[: len(known) - len(_POSITIVE)]) / sum(known)
