"""What the outcome of data.write_records says of labels and of texts that were left out, above all."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool

from crops_jax.errors import InputError
from crops_jax.labels import Level
from data.label_groups import LabelGroups

_SUMMED = (
    "queries_without_positive",
    "texts_written",
    "texts_beyond_documents_per_query",
    "positive_texts_beyond_documents_per_query",
    "queries_beyond_documents_per_query",
    "queries_cut",
)
_BY_LEVEL = "texts_written_by_level"


def text_counts(
    groups: LabelGroups, has_text: Bool[np.ndarray, "rows"], chosen: Bool[np.ndarray, "rows"], *, queries_cut: int
) -> dict[str, Any]:
    """Counts of the queries that have texts; those of several parts of a label table are put together by `sum_counts`.

    Args:
      has_text: rows whose document has a text.
      chosen: those of them whose text is written.
      queries_cut: queries that were longer than the limit.
    """
    left = has_text & ~chosen
    positive = groups.levels >= Level.POSITIVE
    has_documents = np.bincount(groups.row_queries[chosen], minlength=len(groups.queries)) > 0
    levels = Counter(groups.levels[chosen].tolist())
    counted = (
        int((has_documents & ~with_positive(groups)).sum()),
        int(chosen.sum()),
        int(left.sum()),
        int((left & positive).sum()),
        len(np.unique(groups.row_queries[left])),
        queries_cut,
    )
    return {
        **dict(zip(_SUMMED, counted, strict=True)),
        _BY_LEVEL: {str(level): levels[level] for level in sorted(levels)},
    }


def sum_counts(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The counts of a whole from those of its parts, which have no query in common."""
    totals, levels = Counter(dict.fromkeys(_SUMMED, 0)), Counter()
    for part in parts:
        totals.update({name: part[name] for name in _SUMMED})
        levels.update(part[_BY_LEVEL])
    return {**totals, _BY_LEVEL: dict(sorted(levels.items()))}


def nothing_to_train_on(labels: str, logs: str) -> InputError:
    """What is said where no record of the split train can be written."""
    return InputError(
        f"--labels {labels}: no query to train on has a document whose text --logs {logs} knows; give the logs that "
        "hold the labelled documents"
    )


def with_positive(groups: LabelGroups) -> Bool[np.ndarray, "queries"]:
    """Which queries have a document of level 4 or 5."""
    # The highest level of a query stands first.
    return groups.levels[groups.bounds[:-1]] >= Level.POSITIVE
