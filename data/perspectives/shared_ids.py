"""Ids that many people or a robot share: searches of such an id say nothing about what one person wanted."""

import ibis

from data.perspectives.log_events import LogEvents


def shared_ids(events: LogEvents, *, max_searches_per_hour: int) -> ibis.Table:
    """Returns the users with more searches than the limit in at least one hour of UTC.

    Returns:
      user_id and searches, the number of all searches of the user.
    """
    searches = events.searches
    assert searches is not None
    hours = searches.group_by("user_id", hour=searches.time.epoch_seconds() // 3600).agg(searches=searches.count())
    users = hours.group_by("user_id").agg(searches=hours.searches.sum(), busiest=hours.searches.max())
    return users.filter(users.busiest > max_searches_per_hour).select("user_id", "searches")


def without_users(events: LogEvents, users: ibis.Table) -> LogEvents:
    """Returns the events without the searches and the feed views of some users; impressions stay."""
    searches, feed_views = events.searches, events.feed_views
    return events._replace(
        searches=None if searches is None else searches.anti_join(users, "user_id"),
        feed_views=None if feed_views is None else feed_views.anti_join(users, "user_id"),
    )
