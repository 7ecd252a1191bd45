"""Perspective P1, the query level: documents that a user consumed for a later, similar query are positives of the
earlier query.
"""

import datetime

import ibis

from crops_jax.labels import Level
from data.perspectives.log_events import LogEvents
from data.perspectives.rows import as_supports

SOURCE = "query_level"
LEVELS = {SOURCE: Level.QUERY_LEVEL_POSITIVE}
WINDOW_SECONDS = 90
"""The default of the maximum time between the two searches, in seconds."""
MAX_LATER_SEARCHES = 100
"""The default of the maximum number of later searches for each search."""
BETA = 0.5
"""The default of beta, the minimum similarity of two queries."""


def reformulations(
    events: LogEvents,
    *,
    window_seconds: int = WINDOW_SECONDS,
    max_later_searches: int = MAX_LATER_SEARCHES,
    only_unsatisfied: bool = False,
    since: datetime.datetime | None = None,
) -> ibis.Table:
    """Returns the pairs of searches of one user: query at t, via_query at t' with 0 < t' - t <= window_seconds.

    The later searches in the window make a pair, not only the next one. The normalised queries differ.

    Args:
      events: the part of the log that has both searches.
      window_seconds: the maximum time between the two searches, inclusive.
      max_later_searches: the maximum number of later searches for each search, of the same query too. Those nearest in
        time are kept; searches at the same time are ordered by search_id. People do not reach it, but an id that many
        people or a robot share does, and the pairs of such an id would grow with the square of its searches.
      only_unsatisfied: whether to omit first searches with a candidate that was watched long.
      since: the minimum time of the later search; None: no minimum.

    Returns:
      user_id, query, via_query, via_search_id, gap_seconds, with one row for each pair of searches.
    """
    searches = _numbered(events)
    first = _first_searches(events, searches, only_unsatisfied=only_unsatisfied)
    first = first.select(
        "user_id",
        "query",
        "time",
        "later_number",
        slot=first.time.epoch_seconds() // window_seconds,
        number_slot=first.later_number // max_later_searches,
    )
    # Slots are intervals of window_seconds: a later search within the window is in the same slot or the next one. The
    # same holds for intervals of max_later_searches numbers. Equality of slots makes this a hash join, whose time is
    # linear in the searches of even the busiest user.
    first = ibis.union(first, first.mutate(slot=first.slot + 1))
    first = ibis.union(first, first.mutate(number_slot=first.number_slot + 1))
    later = searches if since is None else searches.filter(searches.time >= since)
    later = later.select(
        "user_id",
        "number",
        via_search_id=later.search_id,
        via_query=later.query,
        via_time=later.time,
        slot=later.time.epoch_seconds() // window_seconds,
        number_slot=later.number // max_later_searches,
    )
    pairs = first.join(
        later,
        [
            first.user_id == later.user_id,
            first.slot == later.slot,
            first.number_slot == later.number_slot,
            later.number >= first.later_number,
            later.number < first.later_number + max_later_searches,
            later.via_time <= first.time + ibis.interval(seconds=window_seconds),
            later.via_query != first.query,
        ],
    )
    gap = pairs.via_time.delta(pairs.time, unit="microsecond") / 1e6
    return pairs.select("user_id", "query", "via_query", "via_search_id", gap_seconds=gap)


def left_out(
    events: LogEvents,
    *,
    window_seconds: int = WINDOW_SECONDS,
    max_later_searches: int = MAX_LATER_SEARCHES,
    only_unsatisfied: bool = False,
    since: datetime.datetime | None = None,
) -> ibis.Table:
    """Returns the searches with more later searches in the window than `reformulations` keeps.

    The arguments have the same meaning as in `reformulations`.

    Returns:
      search_id, user_id and left_out, the number of later searches that are not kept.
    """
    searches = _numbered(events)
    many = searches.group_by("user_id").agg(number=searches.count())
    # Only ids with more searches than the limit can reach it, so that few searches are counted in an ordinary log.
    searches = searches.semi_join(many.filter(many.number > max_later_searches), "user_id")
    epoch = ibis.timestamp("1970-01-01", timezone="UTC")
    searches = searches.mutate(
        moment=searches.time.delta(epoch, unit="microsecond"),
        early=ibis.literal(0) if since is None else (searches.time < since).cast("int64"),
    )
    window = ibis.range_window(group_by="user_id", order_by="moment", preceding=None, following=window_seconds * 10**6)
    searches = searches.mutate(
        end=searches.count().over(window), too_early=searches.early.sum().over(ibis.window(group_by="user_id"))
    )
    first = _first_searches(events, searches, only_unsatisfied=only_unsatisfied)
    kept_before = ibis.greatest(first.later_number + max_later_searches, first.too_early)
    beyond = first.select("search_id", "user_id", left_out=first.end - kept_before)
    return beyond.filter(beyond.left_out > 0)


def _numbered(events: LogEvents) -> ibis.Table:
    """Returns the searches with `number`, their place among those of the user, and `later_number`.

    The searches of a user are in the order of their times and ids. later_number is the number of the first search that
    is later than this one.
    """
    searches = events.searches
    assert searches is not None
    order = ibis.window(group_by="user_id", order_by=["time", "search_id"])
    searches = searches.mutate(number=ibis.row_number().over(order))
    return searches.mutate(later_number=searches.number.max().over(ibis.window(group_by=["user_id", "time"])) + 1)


def _first_searches(events: LogEvents, searches: ibis.Table, *, only_unsatisfied: bool) -> ibis.Table:
    """Returns the searches that can be the earlier one of a pair."""
    if not only_unsatisfied:
        return searches
    assert events.impressions is not None
    return searches.anti_join(events.impressions.filter(events.impressions.long_watched), "search_id")


def supports(events: LogEvents, pairs: ibis.Table, similarity: ibis.Table, *, beta: float = BETA) -> ibis.Table:
    """Returns the documents consumed among the later query's own candidates, if the two queries are similar.

    These documents are candidates. The relevance discriminator (theta) scores them, and a document with
    theta(query, document) > alpha gets level 5; alpha is the threshold that the discriminator's probability must
    exceed.

    Args:
      events: the events that were passed to `reformulations`.
      pairs: the result of `reformulations`.
      similarity: query, via_query and similarity, with one row for each distinct pair of queries.
      beta: the minimum similarity of the two queries, inclusive.
    """
    assert events.impressions is not None
    similar = similarity.filter(similarity.similarity >= beta).select("query", "via_query")
    pairs = pairs.semi_join(similar, ["query", "via_query"])
    consumed = events.impressions.filter(events.impressions.consumed).select("search_id", "doc_id")
    return as_supports(pairs.join(consumed, pairs.via_search_id == consumed.search_id), source=SOURCE)
