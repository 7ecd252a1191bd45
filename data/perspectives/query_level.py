"""P1, "the user rephrased": what satisfied a later, similar query of the same user is a positive of the earlier one."""

import datetime

import ibis

from crops_jax.labels import Level
from data.perspectives.log_events import LogEvents
from data.perspectives.rows import as_supports

SOURCE = "query_level"
LEVELS = {SOURCE: Level.QUERY_LEVEL_POSITIVE}
WINDOW_SECONDS = 90
BETA = 0.5


def reformulations(
    events: LogEvents,
    *,
    window_seconds: int = WINDOW_SECONDS,
    only_unsatisfied: bool = False,
    since: datetime.datetime | None = None,
) -> ibis.Table:
    """Pairs of searches of one user: query at t, then via_query at t' with 0 < t' - t <= window_seconds.

    Every such later search counts, not only the next one. The normalised queries differ.

    Args:
      events: the part of the log to read; both searches are of it.
      window_seconds: the border itself is inside.
      only_unsatisfied: leave out searches of which a candidate was watched long.
      since: leaves out pairs whose later search was before it.

    Returns:
      user_id, query, via_query, via_search_id, gap_seconds; one row a pair of searches.
    """
    searches = events.searches
    assert searches is not None
    first = searches
    if only_unsatisfied:
        assert events.impressions is not None
        satisfied = events.impressions.filter(events.impressions.long_watched)
        first = first.anti_join(satisfied, "search_id")
    first = first.select("user_id", "query", "time", slot=first.time.epoch_seconds() // window_seconds)
    # A later search within the window lies in the same slot or the next one: equal slots make this a hash join,
    # linear in the searches of even the busiest user.
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

    These are candidates: theta decides on them, and those with theta(query, document) > alpha get level 5.

    Args:
      events: as in `reformulations`.
      pairs: what `reformulations` gave.
      similarity: query, via_query, similarity of the distinct pairs.
      beta: the least similarity; it is enough itself.
    """
    assert events.impressions is not None
    similar = similarity.filter(similarity.similarity >= beta).select("query", "via_query")
    pairs = pairs.semi_join(similar, ["query", "via_query"])
    consumed = events.impressions.filter(events.impressions.consumed).select("search_id", "doc_id")
    return as_supports(pairs.join(consumed, pairs.via_search_id == consumed.search_id), source=SOURCE)
