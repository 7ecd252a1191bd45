"""The search log's own view: positives P0 and the three kinds of hard negatives (CroPS, "Data engine")."""

import ibis

from crops_jax.labels import Level
from data.perspectives.log_events import LogEvents
from data.perspectives.rows import as_rows

SOURCE = "search_log"
STAGES = {
    "shown_not_clicked": Level.SHOWN_NOT_CLICKED,
    "ranked_not_shown": Level.RANKED_NOT_SHOWN,
    "filtered_before_ranking": Level.FILTERED_BEFORE_RANKING,
}
"""The sources of negative rows."""


def positives_and_negatives(events: LogEvents) -> ibis.Table:
    """Rows of everything that the log's funnel says of its queries.

    Shown and clicked, liked or watched long: level 4, source search_log. Shown and none of these: 3. Ranked but not
    shown: 2. Filtered out before ranking: 1. A log in which no click, like or watch time was recorded at all says
    nothing of what was shown, and gives no rows for it.

    supporters is the number of distinct users. A document that met both fates has a row for each.
    """
    impressions = events.impressions
    recorded = bool(impressions.filter(impressions.recorded).limit(1).count().to_pyarrow().as_py())
    shown = impressions.stage == "shown"
    source = ibis.cases(
        (impressions.consumed, SOURCE),
        (shown & ibis.literal(recorded), "shown_not_clicked"),
        (impressions.stage == "ranked_not_shown", "ranked_not_shown"),
        (impressions.stage == "filtered_before_ranking", "filtered_before_ranking"),
        else_=ibis.null("string"),
    )
    impressions = impressions.mutate(source=source)
    impressions = impressions.filter(impressions.source.notnull())
    rows = impressions.group_by("query", "doc_id", "source").agg(supporters=impressions.user_id.nunique())
    level = ibis.cases(
        (rows.source == SOURCE, int(Level.POSITIVE)),
        *((rows.source == name, int(level)) for name, level in STAGES.items()),
    )
    return as_rows(rows, level=level)
