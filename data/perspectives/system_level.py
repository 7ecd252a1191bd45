"""P2, "the feed knew": what the recommendation feed gave a user around the time of a query."""

import datetime

import ibis

from crops_jax.labels import Level
from data.perspectives.log_events import LogEvents
from data.perspectives.rows import as_supports

SOURCE = "system_level"
LEVELS = {SOURCE: Level.POSITIVE}
FEED_WINDOW_SECONDS = 1800
MAX_FEED_DOCUMENTS = 100


def supports(
    events: LogEvents,
    *,
    feed_window_seconds: int = FEED_WINDOW_SECONDS,
    max_feed_documents: int = MAX_FEED_DOCUMENTS,
    only_long_watch: bool = False,
    since: datetime.datetime | None = None,
) -> ibis.Table:
    """Feed documents that users who issued a query viewed around it; gap_seconds is without sign.

    These are candidates: theta decides on them, and those with theta(query, document) > alpha get level 4.

    Args:
      events: the part of the log to read.
      feed_window_seconds: at most this long before or after the query; the border itself is inside.
      max_feed_documents: of a (user, query), those nearest in time to any of that user's searches with the query,
        equals by doc_id.
      only_long_watch: views that were watched long, instead of all.
      since: leaves out what happened before it, unless the later of search and view did not.
    """
    views, searches = events.feed_views, events.searches
    assert views is not None
    assert searches is not None
    if only_long_watch:
        views = views.filter(views.long_watched)
    views = views.select(
        "user_id", "doc_id", view_time=views.time, slot=views.time.epoch_seconds() // feed_window_seconds
    )
    searches = searches.select("user_id", "query", "time", slot=searches.time.epoch_seconds() // feed_window_seconds)
    # A view within the window lies in the same slot or a neighbouring one; see query_level.
    searches = ibis.union(searches, *(searches.mutate(slot=searches.slot + step) for step in (-1, 1)))
    window = ibis.interval(seconds=feed_window_seconds)
    near = searches.join(
        views,
        [
            searches.user_id == views.user_id,
            searches.slot == views.slot,
            views.view_time >= searches.time - window,
            views.view_time <= searches.time + window,
        ],
    )
    if since is not None:
        near = near.filter((near.time >= since) | (near.view_time >= since))
    near = near.mutate(gap_seconds=near.view_time.delta(near.time, unit="microsecond").abs() / 1e6)
    nearest = near.group_by("user_id", "query", "doc_id").agg(gap_seconds=near.gap_seconds.min())
    order = ibis.window(group_by=["user_id", "query"], order_by=[nearest.gap_seconds, nearest.doc_id])
    nearest = nearest.mutate(place=ibis.row_number().over(order))
    kept = nearest.filter(nearest.place < max_feed_documents)
    return as_supports(kept, source=SOURCE)
