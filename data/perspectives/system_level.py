"""Perspective P2, the system level: documents that users viewed in the recommendation feed around the time of a query
are positives of this query.
"""

import datetime

import ibis

from crops_jax.labels import Level
from data.perspectives.log_events import LogEvents
from data.perspectives.rows import as_supports

SOURCE = "system_level"
LEVELS = {SOURCE: Level.POSITIVE}
FEED_WINDOW_SECONDS = 1800
"""The default of the maximum time between the search and the view, in seconds."""
MAX_FEED_DOCUMENTS = 100
"""The default of the maximum number of feed documents for each user and query."""


def supports(
    events: LogEvents,
    *,
    feed_window_seconds: int = FEED_WINDOW_SECONDS,
    max_feed_documents: int = MAX_FEED_DOCUMENTS,
    only_long_watch: bool = False,
    since: datetime.datetime | None = None,
) -> ibis.Table:
    """Returns the feed documents that users viewed around their searches; gap_seconds is an absolute value.

    These documents are candidates. The relevance discriminator (theta) scores them, and a document with
    theta(query, document) > alpha gets level 4; alpha is the threshold that the discriminator's probability must
    exceed.

    Args:
      events: the part of the log to read.
      feed_window_seconds: the maximum time of the view before or after the search, inclusive.
      max_feed_documents: the maximum number of documents for each (user, query). The documents nearest in time to any
        search of the user with this query are kept; documents with equal times are ordered by doc_id.
      only_long_watch: whether to use only views that were watched long.
      since: the minimum time of the later of search and view; None: no minimum.
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
    # A view within the window is in the same slot or in an adjacent slot; see query_level.
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
    nearest = nearest.mutate(rank=ibis.row_number().over(order))
    kept = nearest.filter(nearest.rank < max_feed_documents)
    return as_supports(kept, source=SOURCE)
