"""The search log's own view: positives P0 and the three kinds of hard negatives (CroPS, "Data engine")."""

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
"""The sources of negative rows."""
LEVELS = {SOURCE: Level.POSITIVE, **STAGES}


def supports(events: LogEvents, *, since: datetime.datetime | None = None) -> ibis.Table:
    """Returns the supports of the log's funnel for its queries, one for each candidate.

    Shown and clicked, liked or watched long: source search_log, level 4. Shown and none of these: shown_not_clicked, 3.
    Ranked but not shown: 2. Filtered out before ranking: 1. A document that met two fates has supports of both.

    Args:
      events: the part of the log to read.
      since: leaves out searches before it.
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
    """Returns whether a click, like or watch time was recorded: without any, the log does not show what users passed
    over, and supports of shown_not_clicked say nothing."""
    assert events.impressions is not None
    impressions = events.impressions.filter(events.impressions.recorded)
    if since is not None:
        impressions = impressions.filter(impressions.time >= since)
    return bool(impressions.limit(1).count().to_pyarrow().as_py())
