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
BETA = 0.5
"""The default of beta, the minimum similarity of two queries."""


def reformulations(
    events: LogEvents,
    *,
    window_seconds: int = WINDOW_SECONDS,
    only_unsatisfied: bool = False,
    since: datetime.datetime | None = None,
) -> ibis.Table:
    """Returns the pairs of searches of one user: query at t, via_query at t' with 0 < t' - t <= window_seconds.

    All later searches in the window make a pair, not only the next one. The normalised queries differ.

    Args:
      events: the part of the log that has both searches.
      window_seconds: the maximum time between the two searches, inclusive.
      only_unsatisfied: whether to omit first searches with a candidate that was watched long.
      since: the minimum time of the later search; None: no minimum.

    Returns:
      user_id, query, via_query, via_search_id, gap_seconds, with one row for each pair of searches.
    """
    searches = events.searches
    assert searches is not None
    first = searches
    if only_unsatisfied:
        assert events.impressions is not None
        satisfied = events.impressions.filter(events.impressions.long_watched)
        first = first.anti_join(satisfied, "search_id")
    first = first.select("user_id", "query", "time", slot=first.time.epoch_seconds() // window_seconds)
    # Slots are intervals of window_seconds: a later search within the window is in the same slot or the next one.
    # Equality of slots makes this a hash join, whose time is linear in the searches of even the busiest user.
    first = ibis.union(first, first.mutate(slot=first.slot + 1))
    later = searches if since is None else searches.filter(searches.time >= since)
    later = later.select(
        "user_id",
        via_search_id=later.search_id,
        via_query=later.query,
        via_time=later.time,
        slot=later.time.epoch_seconds() // window_seconds,
    )
    pairs = first.join(
        later,
        [
            first.user_id == later.user_id,
            first.slot == later.slot,
            later.via_time > first.time,
            later.via_time <= first.time + ibis.interval(seconds=window_seconds),
            later.via_query != first.query,
        ],
    )
    gap = pairs.via_time.delta(pairs.time, unit="microsecond") / 1e6
    return pairs.select("user_id", "query", "via_query", "via_search_id", gap_seconds=gap)


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
