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
# A document that a user viewed again and again takes several views and one place.
_VIEWS_PER_PLACE = 2


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
        search of the user with this query are kept; documents with equal times are ordered by doc_id. Only the nearest
        views of each search are paired with it, twice this number before it and as many after it: an id that many
        people or a robot share would otherwise have as many pairs as searches times views. This changes nothing unless
        more views lie on one side of a search in the window, and they are of fewer than this number of documents.
      only_long_watch: whether to use only views that were watched long.
      since: the minimum time of the later of search and view; None: no minimum.
    """
    views, searches = events.feed_views, events.searches
    assert views is not None
    assert searches is not None
    if only_long_watch:
        views = views.filter(views.long_watched)
    limit = _VIEWS_PER_PLACE * max_feed_documents
    near = nearest_views(searches, views, since, window_seconds=feed_window_seconds, limit=limit)
    if since is not None:
        near = near.filter((near.time >= since) | (near.view_time >= since))
    near = near.mutate(gap_seconds=near.view_time.delta(near.time, unit="microsecond").abs() / 1e6)
    nearest = near.group_by("user_id", "query", "doc_id").agg(gap_seconds=near.gap_seconds.min())
    order = ibis.window(group_by=["user_id", "query"], order_by=[nearest.gap_seconds, nearest.doc_id])
    nearest = nearest.mutate(rank=ibis.row_number().over(order))
    kept = nearest.filter(nearest.rank < max_feed_documents)
    return as_supports(kept, source=SOURCE)


def nearest_views(
    searches: ibis.Table, views: ibis.Table, since: datetime.datetime | None, *, window_seconds: int, limit: int
) -> ibis.Table:
    """Returns the pairs of a search and a view of one user in the window, at most `limit` on each side of a search.

    Args:
      searches: user_id, query, time.
      views: user_id, doc_id, time.
      since: the minimum time of the later of search and view; views that are too early do not count. None: no minimum.
        Pairs that are too early can remain.
      window_seconds: the maximum time of the view before or after the search, inclusive.
      limit: the number of views on each side. The nearest in time are kept, those with equal times by doc_id.

    Returns:
      user_id, query, time, doc_id, view_time.
    """
    views = views.select("user_id", "doc_id", view_time=views.time)
    searches = _with_views_before(searches, views, since)
    # Of views at one time, those with the lower doc_id are nearer, on both sides.
    forwards = ibis.window(group_by="user_id", order_by=[views.view_time, views.doc_id])
    backwards = ibis.window(group_by="user_id", order_by=[views.view_time, views.doc_id.desc()])
    after = _pairs(
        searches.mutate(first=searches.after),
        views.mutate(number=ibis.row_number().over(forwards)),
        window_seconds=window_seconds,
        limit=limit,
        step=1,
    )
    before = _pairs(
        searches.mutate(first=searches.before - limit),
        views.mutate(number=ibis.row_number().over(backwards)),
        window_seconds=window_seconds,
        limit=limit,
        step=-1,
    )
    return ibis.union(after, before)


def _with_views_before(searches: ibis.Table, views: ibis.Table, since: datetime.datetime | None) -> ibis.Table:
    """Returns the searches with `before`, the number of the user's views until then, and `after`.

    `after` is the number of the views until then or before `since`, the views that are not later ones.
    """
    moments = ibis.union(
        searches.select("user_id", "query", "time", viewed=ibis.literal(0, "int64")),
        views.select("user_id", query=ibis.null("string"), time=views.view_time, viewed=ibis.literal(1, "int64")),
    )
    # A view at the time of a search is before it.
    until = ibis.cumulative_window(group_by="user_id", order_by=[moments.time, moments.viewed.desc()])
    early = ibis.literal(0, "int64") if since is None else moments.viewed * (moments.time < since).cast("int64")
    moments = moments.mutate(before=moments.viewed.sum().over(until), early=early)
    moments = moments.mutate(early=moments.early.sum().over(ibis.window(group_by="user_id")))
    moments = moments.mutate(after=ibis.greatest(moments.before, moments.early))
    return moments.filter(moments.viewed == 0).select("user_id", "query", "time", "before", "after")


def _pairs(searches: ibis.Table, views: ibis.Table, *, window_seconds: int, limit: int, step: int) -> ibis.Table:
    """Returns the pairs of searches and views whose numbers are at least `first` and below `first` + `limit`.

    A view in the window is in the same slot of time or in the next one in the direction of `step`, and its number is in
    the same slot of numbers or the next one; see query_level.
    """
    searches = searches.mutate(
        slot=searches.time.epoch_seconds() // window_seconds, number_slot=searches["first"] // limit
    )
    searches = ibis.union(searches, searches.mutate(slot=searches.slot + step))
    searches = ibis.union(searches, searches.mutate(number_slot=searches.number_slot + 1))
    views = views.mutate(slot=views.view_time.epoch_seconds() // window_seconds, number_slot=views.number // limit)
    window = ibis.interval(seconds=window_seconds)
    pairs = searches.join(
        views,
        [
            searches.user_id == views.user_id,
            searches.slot == views.slot,
            searches.number_slot == views.number_slot,
            views.number >= searches["first"],
            views.number < searches["first"] + limit,
            views.view_time >= searches.time - window,
            views.view_time <= searches.time + window,
        ],
    )
    return pairs.select("user_id", "query", "time", "doc_id", "view_time")
