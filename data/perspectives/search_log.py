"""The search log itself: the positives P0 and the three kinds of hard negatives (CroPS, "Data engine")."""

import datetime

import ibis

from crops_jax.labels import Level
from data.perspectives.log_events import LogEvents
from data.perspectives.rows import as_supports

SOURCE = "search_log"
SHOWN_NOT_CLICKED = "shown_not_clicked"
STAGES = {
    SHOWN_NOT_CLICKED: Level.SHOWN_NOT_CLICKED,
    "ranked_not_shown": Level.RANKED_NOT_SHOWN,
    "filtered_before_ranking": Level.FILTERED_BEFORE_RANKING,
}
"""The sources of negative rows and their levels."""
LEVELS = {SOURCE: Level.POSITIVE, **STAGES}


def supports(events: LogEvents, *, since: datetime.datetime | None = None) -> ibis.Table:
    """Returns one support for each candidate of the log's searches.

    The stage of the candidate and the actions of the user determine the source of the support:

    - search_log (level 4): the document was shown, and clicked, liked or watched long.
    - shown_not_clicked (level 3): the document was shown, but not clicked, liked or watched long.
    - ranked_not_shown (level 2): the document was ranked, but not shown.
    - filtered_before_ranking (level 1): the document was removed before ranking.

    A document with different stages in several searches with the same query has supports of each.

    Args:
      events: the part of the log to read.
      since: the minimum time of the searches; None: no minimum.
    """
    impressions = events.impressions
    assert impressions is not None
    if since is not None:
        impressions = impressions.filter(impressions.time >= since)
    source = ibis.cases(
        (impressions.consumed, SOURCE),
        (impressions.stage == "shown", SHOWN_NOT_CLICKED),
        *((impressions.stage == stage, stage) for stage in STAGES if stage != SHOWN_NOT_CLICKED),
        else_=ibis.null("string"),
    )
    impressions = impressions.mutate(source=source)
    return as_supports(impressions.filter(impressions.source.notnull()))


def behaviour_recorded(events: LogEvents, *, since: datetime.datetime | None = None) -> bool:
    """Returns whether the log records a click, a like or a watch time.

    If it records none, the log does not show which documents users ignored, and supports of shown_not_clicked are no
    evidence.
    """
    assert events.impressions is not None
    impressions = events.impressions.filter(events.impressions.recorded)
    if since is not None:
        impressions = impressions.filter(impressions.time >= since)
    return bool(impressions.limit(1).count().to_pyarrow().as_py())
