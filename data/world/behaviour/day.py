"""One day of the world, served by one engine."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from data.world.behaviour.clicks import click_probability, likes, watch_seconds
from data.world.behaviour.feed import FeedViews, draw_feed
from data.world.behaviour.sessions import Asks, Sessions, asks_of, draw_sessions, reformulate
from data.world.channels import Clicks
from data.world.engine import Engine, Pages
from data.world.truth.documents import DAY_US
from data.world.world import World


class Searches(NamedTuple):
    """The searches of a day in order of time, with the documents that were shown and the user's reactions."""

    user: Int[np.ndarray, "searches"]
    query: Int[np.ndarray, "searches"]
    intent: Int[np.ndarray, "searches"]
    """The intent of the user. It is hidden: no log table contains it."""
    time_us: Int[np.ndarray, "searches"]
    pages: Pages
    """The documents that each search showed, ranked without showing, and filtered before ranking."""
    clicked: Bool[np.ndarray, "searches page"]
    liked: Bool[np.ndarray, "searches page"]
    watch_seconds: Float[np.ndarray, "searches page"]


class Day(NamedTuple):
    """A served day with its hidden truth. data.world.logs.log_tables turns it into log tables without the truth."""

    number: int
    searches: Searches
    feed: FeedViews

    def clicked_documents(self) -> Int[np.ndarray, "clicks"]:
        """Returns the number of the document of each click on a search result."""
        return self.searches.pages.shown[self.searches.clicked]

    def clicks(self, world: World) -> Clicks:
        """Returns the clicks on search results with their users and queries."""
        row, position = np.nonzero(self.searches.clicked)
        queries = [world.queries.text[query] for query in self.searches.query[row]]
        return Clicks(self.searches.user[row], queries, self.searches.pages.shown[row, position])


def serve_day(world: World, engine: Engine, *, day: int) -> Day:
    """Serves every session and feed visit that starts on a day; some of them end after midnight.

    Users, needs and arrivals come from random streams of the world that do not depend on the engine, so that all
    engines of a comparison serve the same ones. The index contains the documents that were published before the day
    starts.

    Args:
      world: the world.
      engine: the engine that answers the searches. Its popularity also drives the feed.
      day: the number of the day; the first day is 0.
    """
    asks = asks_of(world)
    sessions = draw_sessions(world, asks, day=day)
    return Day(
        number=day,
        searches=_serve_sessions(world, engine, asks, sessions, day),
        feed=draw_feed(world, sessions, day=day, popularity=engine.popularity),
    )


def _serve_sessions(world: World, engine: Engine, asks: Asks, sessions: Sessions, day: int) -> Searches:
    """Serves all sessions in rounds; each round serves one search of every session that is still active."""
    constants, queries = world.constants, world.queries
    rng = world.streams.generator("engine", day)
    published = int(world.published_before(constants.start_us + day * DAY_US).sum())
    active = np.arange(len(sessions.user))
    query, intent = sessions.need.query.copy(), sessions.need.intent.copy()
    time = sessions.start_us.copy()
    tried = [[int(first)] for first in query]
    rounds: list[Searches] = []
    for number in range(constants.queries_per_session):
        pages = engine.serve([queries.text[q] for q in query[active]], published=published, rng=rng)
        served = _behave(world, sessions, active, number, pages, query[active], intent[active], time[active])
        rounds.append(served)
        satisfied = (served.watch_seconds >= constants.satisfied_watch_seconds).any(axis=1)
        active = active[~satisfied & sessions.goes_on[active, number]]
        for i in active:
            _move_on(world, asks, sessions, i, number, query, intent, tried[i])
        active = active[query[active] >= 0]
        time[active] += (sessions.gap_seconds[active, number] * 1e6).astype(np.int64)
        if not len(active):
            break
    return _sort_by_time(rounds)


def _move_on(
    world: World,
    asks: Asks,
    sessions: Sessions,
    i: int,
    number: int,
    query: np.ndarray,
    intent: np.ndarray,
    tried: list[int],
) -> None:
    """Sets the next query and intent of session i in place, and appends the query to `tried`; -1 ends the session."""
    if sessions.drops_need[i, number]:
        intent[i] = sessions.other_need.intent[i, number]
        other = int(sessions.other_need.query[i, number])
        query[i] = -1 if other in tried else other
    else:
        uniform = float(sessions.choice[i, number])
        query[i] = reformulate(world, asks, intent=int(intent[i]), tried=tried, uniform=uniform)
    tried.append(int(query[i]))


def _behave(
    world: World,
    sessions: Sessions,
    active: np.ndarray,
    number: int,
    pages: Pages,
    query: np.ndarray,
    intent: np.ndarray,
    time: np.ndarray,
) -> Searches:
    """Returns the searches of one round, with the clicks, watch times and likes on their pages."""
    constants = world.constants
    page = pages.shown.shape[1]
    occupied = pages.shown >= 0
    documents = np.maximum(pages.shown, 0)
    grades = world.intent_grades(intent[:, None], documents).astype(np.int64)
    probability = click_probability(
        np.arange(1, page + 1)[None, :],
        grades,
        exponent=constants.position_exponent,
        noise=constants.click_noise,
        ceiling=constants.click_ceiling,
    )
    clicked = occupied & (sessions.click[active, number, :page] < probability)
    normals = sessions.watch[active, number, :page]
    watched = watch_seconds(grades, world.documents.quality[documents], normals, spread=constants.watch_spread)
    liked = clicked & likes(grades, sessions.like[active, number, :page])
    return Searches(sessions.user[active], query, intent, time, pages, clicked, liked, np.where(clicked, watched, 0.0))


def _sort_by_time(rounds: list[Searches]) -> Searches:
    """Returns the searches of all rounds in order of time; searches of the same time are in order of the user."""

    def joined(column: str) -> np.ndarray:
        return np.concatenate([getattr(part, column) for part in rounds])

    time, user = joined("time_us"), joined("user")
    order = np.lexsort((user, time))
    pages = Pages(*(np.concatenate(stage)[order] for stage in zip(*(part.pages for part in rounds), strict=True)))
    others = ("clicked", "liked", "watch_seconds")
    return Searches(
        user[order],
        joined("query")[order],
        joined("intent")[order],
        time[order],
        pages,
        *(joined(column)[order] for column in others),
    )
