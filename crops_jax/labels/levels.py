"""The levels of hierarchical label assignment (HLA) in CroPS (arXiv 2511.15443), and what a run logs of each level."""

import enum

IGNORE = -1
"""The level of a pair that a loss ignores: it is neither an anchor nor a negative of an anchor."""


class Level(enum.IntEnum):
    """The level of a pair. It says how strongly a document answers a query.

    It follows from the stage of the search log at which the document was seen.
    """

    IN_BATCH_NEGATIVE = 0
    FILTERED_BEFORE_RANKING = 1
    RANKED_NOT_SHOWN = 2
    SHOWN_NOT_CLICKED = 3
    POSITIVE = 4
    QUERY_LEVEL_POSITIVE = 5


ANCHOR_LEVELS = tuple(Level)[1:]
"""The levels 1 to 5, whose pairs are anchors."""

ANCHORS, RECALL, SCORE_GAP = "anchors_level", "recall_in_batch_level", "score_gap_level"
"""The prefixes of the fields of metrics.jsonl that have one value for each anchor level; its number follows them."""
