"""The events that the perspectives read: searches with normalised queries, their candidates, and feed views.

Times are compared as timestamps and never as differences of clock fields, so that midnight and the ends of months are
not special cases.
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
"""The minimum watch (or reading) time of a document that satisfied the user, the default of all perspectives. A dwell
time of 30 seconds is the usual threshold of a satisfied click (Fox et al. 2005)."""


class LogEvents(NamedTuple):
    """A part of the log as Ibis tables. A table that the log lacks is None."""

    searches: ibis.Table | None
    """search_id, user_id, query (normalised), time, group."""
    impressions: ibis.Table | None
    """The candidates of the searches: search_id, user_id, query, time (of the search), doc_id, stage, consumed,
    long_watched, recorded (whether a click, a like or a watch time of the user was recorded)."""
    feed_views: ibis.Table | None
    """user_id, doc_id, time, long_watched."""

    def only(self, searches: ibis.Table, *, feed_before: datetime.datetime | None = None) -> "LogEvents":
        """Returns the events of some searches and the feed views before a time.

        Args:
          searches: rows of `self.searches`.
          feed_before: the end of the interval of the feed views, exclusive; None: all feed views.
        """
        impressions, feed_views = self.impressions, self.feed_views
        if impressions is not None:
            impressions = impressions.semi_join(searches, "search_id")
        if feed_views is not None and feed_before is not None:
            feed_views = feed_views.filter(feed_views.time < feed_before)
        return LogEvents(searches, impressions, feed_views)

    def before(self, time: datetime.datetime | None) -> "LogEvents":
        """Returns the events before a time, which is exclusive; all events if it is None."""
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
    """Returns the events of a connection to log tables (data.tables.LogTables.connect).

    A click, a like or a watch time that is null was not recorded and is treated as absent.

    Args:
      connection: an Ibis backend with a view for each table.
      names: the names of the tables that are present.
      long_watch_seconds: the minimum watch time of a document that the user consumed and that satisfied the user.
      since, before: the interval of the searches and feed views to read; its end is exclusive.
    """
    names = set(names)
    searches = impressions = feed_views = None
    if "searches" in names:
        searches = _normalised_searches(connection, _within(connection.table("searches"), since, before))
        if "candidates" in names:
            searched = searches.select("search_id", "user_id", "query", "time")
            impressions = _with_consumption(connection.table("candidates"), long_watch_seconds).join(
                searched, "search_id"
            )
            impressions = impressions.select(
                "search_id", "user_id", "query", "time", "doc_id", "stage", "consumed", "long_watched", "recorded"
            )
    if "feed_views" in names:
        views = _within(connection.table("feed_views"), since, before)
        feed_views = views.select("user_id", "doc_id", "time", long_watched=_is_long_watched(views, long_watch_seconds))
    return LogEvents(searches, impressions, feed_views)


def parse_time(text: str, *, argument: str) -> datetime.datetime:
    """Returns the time of an ISO 8601 text; a time without an offset is UTC.

    Raises InputError with the argument's name if the text is not such a time.
    """
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
    # The backends have no function for Unicode NFKC, so the distinct queries are normalised here and joined.
    typed = searches.select("query").distinct().to_pyarrow()["query"]
    forms = pa.table({"typed": typed, "query": pa.array(map(normalise_query, typed.to_pylist()), pa.string())})
    forms = connection.create_table(ibis.util.gen_name("query_forms"), forms, temp=True)
    searches = searches.rename(typed="query").join(forms, "typed")
    searches = searches.select("search_id", "user_id", "query", "time", "group")
    return connection.create_table(ibis.util.gen_name("searches"), searches, temp=True)


def _with_consumption(candidates: ibis.Table, long_watch_seconds: float) -> ibis.Table:
    long_watched = _is_long_watched(candidates, long_watch_seconds)
    consumed = candidates.clicked.fill_null(False) | candidates.liked.fill_null(False) | long_watched
    recorded = candidates.clicked.notnull() | candidates.liked.notnull() | candidates.watch_seconds.notnull()
    shown = candidates.stage == "shown"
    return candidates.select(
        "search_id", "doc_id", "stage", consumed=shown & consumed, long_watched=long_watched, recorded=recorded
    )


def _is_long_watched(table: ibis.Table, seconds: float) -> ibis.expr.types.BooleanColumn:
    return (table.watch_seconds >= seconds).fill_null(False)
