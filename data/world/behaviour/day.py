"""One day of the world with one engine."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from data.world.behaviour.clicks import click_probability, likes, watch_seconds
from data.world.behaviour.feed import FeedViews, draw_feed
from data.world.behaviour.sessions import Asks, Sessions, asks_of, draw_sessions, reformulate
from data.world.engine import Engine, Pages
from data.world.truth.documents import DAY_US
from data.world.world import World


class Searches(NamedTuple):
    """Searches of a day with what was shown and done; by time."""

    user: Int[np.ndarray, "searches"]
    query: Int[np.ndarray, "searches"]
    intent: Int[np.ndarray, "searches"]
    """Hidden: what the user meant."""
    time_us: Int[np.ndarray, "searches"]
    pages: Pages
    clicked: Bool[np.ndarray, "searches page"]
    liked: Bool[np.ndarray, "searches page"]
    watch_seconds: Float[np.ndarray, "searches page"]


class Day(NamedTuple):
    """A served day: the world's view of it; data.world.logs.log_tables makes the log's."""

    number: int
    searches: Searches
    feed: FeedViews

    def clicked_documents(self) -> Int[np.ndarray, "clicks"]:
        return self.searches.pages.shown[self.searches.clicked]


def serve_day(world: World, engine: Engine, *, day: int) -> Day:
    """Serves every search and feed visit that starts on a day (from 0); some end after midnight.

    Users, needs and arrivals come from the world's own streams, so that engines under comparison meet the same ones.
    The index holds what was published before midnight.
    """
    asks = asks_of(world)
    sessions = draw_sessions(world, asks, day=day)
    return Day(
        number=day,
        searches=_serve_sessions(world, engine, asks, sessions, day),
        feed=draw_feed(world, sessions, day=day, popularity=engine.popularity),
    )


def _serve_sessions(world: World, engine: Engine, asks: Asks, sessions: Sessions, day: int) -> Searches:
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
        done = _behave(world, sessions, active, number, pages, query[active], intent[active], time[active])
        rounds.append(done)
        satisfied = (done.watch_seconds >= constants.satisfied_watch_seconds).any(axis=1)
        active = active[~satisfied & sessions.goes_on[active, number]]
        for i in active:
            _move_on(world, asks, sessions, i, number, query, intent, tried[i])
        active = active[query[active] >= 0]
        time[active] += (sessions.gap_seconds[active, number] * 1e6).astype(np.int64)
        if not len(active):
            break
    return _by_time(rounds)


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
    """Sets the next query (-1: none) and intent of session i, in place."""
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
    """Clicks, watch times and likes on the pages of one round."""
    constants = world.constants
    page = pages.shown.shape[1]
    there = pages.shown >= 0
    documents = np.maximum(pages.shown, 0)
    grades = world.intent_grades(intent[:, None], documents).astype(np.int64)
    chance = click_probability(
        np.arange(1, page + 1)[None, :], grades, exponent=constants.position_exponent, noise=constants.click_noise
    )
    clicked = there & (sessions.click[active, number, :page] < chance)
    normals = sessions.watch[active, number, :page]
    watched = watch_seconds(grades, world.documents.quality[documents], normals, spread=constants.watch_spread)
    liked = clicked & likes(grades, sessions.like[active, number, :page])
    return Searches(sessions.user[active], query, intent, time, pages, clicked, liked, np.where(clicked, watched, 0.0))


def _by_time(rounds: list[Searches]) -> Searches:
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
