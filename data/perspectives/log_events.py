"""The events that the perspectives read: searches with normalised queries, their candidates, and feed views.

Times are compared as timestamps and never as differences of clock fields, so that midnight and month ends are like
any other moment.
"""

import datetime
from collections.abc import Iterable
from typing import NamedTuple

import ibis
import pyarrow as pa

from crops_jax.errors import InputError
from crops_jax.text import normalise_query
from data.backends.connection import Connection

LONG_WATCH_SECONDS = 30.0
"""A document watched (or read) at least this long satisfied the user: the one default of all perspectives. 30 seconds
of dwell time is the usual mark of a satisfied click (Fox et al. 2005)."""


class LogEvents(NamedTuple):
    """A part of the log as Ibis tables; None where the log has no such table.

    searches: search_id, user_id, query (normalised), time, group.
    impressions: the candidates of those searches: search_id, user_id, query, time (of the search), doc_id, stage,
      consumed, long_watched, recorded (whether anything is known of what the user did).
    feed_views: user_id, doc_id, time, long_watched.
    """

    searches: ibis.Table | None
    impressions: ibis.Table | None
    feed_views: ibis.Table | None

    def only(self, searches: ibis.Table, *, feed_before: datetime.datetime | None = None) -> "LogEvents":
        """The events of some of the searches (rows of `self.searches`), and the feed before a time."""
        impressions, feed_views = self.impressions, self.feed_views
        if impressions is not None:
            impressions = impressions.semi_join(searches, "search_id")
        if feed_views is not None and feed_before is not None:
            feed_views = feed_views.filter(feed_views.time < feed_before)
        return LogEvents(searches, impressions, feed_views)

    def before(self, time: datetime.datetime | None) -> "LogEvents":
        """The events earlier than a time, which is exclusive; all of them when it is None."""
        if time is None or self.searches is None:
            return self
        return self.only(self.searches.filter(self.searches.time < time), feed_before=time)


def read_events(
    connection: Connection,
    names: Iterable[str],
    *,
    long_watch_seconds: float = LONG_WATCH_SECONDS,
    since: datetime.datetime | None = None,
    before: datetime.datetime | None = None,
) -> LogEvents:
    """The events of a connection to log tables (data.tables.LogTables.connect).

    A click, like or watch time that is null was not recorded, and counts as none.

    Args:
      connection: an Ibis backend with a view for each table.
      names: the tables that are there.
      long_watch_seconds: watched at least this long is consumed and satisfied.
      since, before: reads the searches and feed views of this span alone, its end exclusive.
    """
    names = set(names)
    searches = impressions = feed_views = None
    if "searches" in names:
        searches = _normalised_searches(connection, _within(connection.table("searches"), since, before))
        if "candidates" in names:
            who = searches.select("search_id", "user_id", "query", "time")
            impressions = _with_consumption(connection.table("candidates"), long_watch_seconds).join(who, "search_id")
            impressions = impressions.select(
                "search_id", "user_id", "query", "time", "doc_id", "stage", "consumed", "long_watched", "recorded"
            )
    if "feed_views" in names:
        views = _within(connection.table("feed_views"), since, before)
        feed_views = views.select("user_id", "doc_id", "time", long_watched=_long(views, long_watch_seconds))
    return LogEvents(searches, impressions, feed_views)


def parse_time(text: str, *, argument: str) -> datetime.datetime:
    """A moment from ISO 8601 text; without an offset it is UTC. Raises InputError naming the argument."""
    try:
        time = datetime.datetime.fromisoformat(text.strip())
        return time.replace(tzinfo=datetime.UTC) if time.tzinfo is None else time.astimezone(datetime.UTC)
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{argument} {text!r} is not an ISO 8601 time ({error}); write 2024-05-31 or 2024-05-31T12:30:00Z"
        ) from error


def _within(table: ibis.Table, since: datetime.datetime | None, before: datetime.datetime | None) -> ibis.Table:
    if since is not None:
        table = table.filter(table.time >= since)
    return table if before is None else table.filter(table.time < before)


def _normalised_searches(connection: Connection, searches: ibis.Table) -> ibis.Table:
    # Unicode NFKC is no function of the backends: the distinct queries are normalised here and joined.
    typed = searches.select("query").distinct().to_pyarrow()["query"]
    forms = pa.table({"typed": typed, "query": pa.array(map(normalise_query, typed.to_pylist()), pa.string())})
    forms = connection.create_table(ibis.util.gen_name("query_forms"), forms, temp=True)
    searches = searches.rename(typed="query").join(forms, "typed")
    searches = searches.select("search_id", "user_id", "query", "time", "group")
    return connection.create_table(ibis.util.gen_name("searches"), searches, temp=True)


def _with_consumption(candidates: ibis.Table, long_watch_seconds: float) -> ibis.Table:
    long_watched = _long(candidates, long_watch_seconds)
    consumed = candidates.clicked.fill_null(False) | candidates.liked.fill_null(False) | long_watched
    recorded = candidates.clicked.notnull() | candidates.liked.notnull() | candidates.watch_seconds.notnull()
    shown = candidates.stage == "shown"
    return candidates.select(
        "search_id", "doc_id", "stage", consumed=shown & consumed, long_watched=long_watched, recorded=recorded
    )


def _long(table: ibis.Table, seconds: float) -> ibis.expr.types.BooleanColumn:
    return (table.watch_seconds >= seconds).fill_null(False)
