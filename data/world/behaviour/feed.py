"""The recommendation feed: knows users' interests and current needs without their words, and explores."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from data.world.behaviour.clicks import likes, watch_seconds
from data.world.behaviour.sessions import Sessions
from data.world.truth.documents import DAY_US
from data.world.truth.lexicon import draw_from_rows
from data.world.world import RELEVANT_GRADE, World

# When the feed is visited beside a search: seconds before and after it starts.
_AROUND_SEARCH_SECONDS = (-900.0, 1200.0)
_PAUSE_SECONDS = 2.0
_NO_NEED = -1


class FeedViews(NamedTuple):
    """The views, sorted by time, then user and document."""

    user: Int[np.ndarray, "views"]
    document: Int[np.ndarray, "views"]
    time_us: Int[np.ndarray, "views"]
    watch_seconds: Float[np.ndarray, "views"]
    liked: Bool[np.ndarray, "views"]


class _Visits(NamedTuple):
    user: Int[np.ndarray, "visits"]
    start_us: Int[np.ndarray, "visits"]
    intent: Int[np.ndarray, "visits"]


@dataclass(frozen=True)
class _Shelves:
    """Documents by topic, by time of publication within a topic."""

    document: Int[np.ndarray, "documents"]
    topic: Int[np.ndarray, "documents"]
    first: Int[np.ndarray, "topics"]
    published_at_us: Int[np.ndarray, "documents"]

    def pick(
        self, topics: Int[np.ndarray, "n"], time_us: Int[np.ndarray, "n"], uniforms: Float[np.ndarray, "n"]
    ) -> Int[np.ndarray, "n"]:
        """A published document of each topic, -1 where there is none."""
        oldest = self.published_at_us.min()
        span = max(self.published_at_us.max(), time_us.max(initial=0)) - oldest + 1
        # One increasing key for topic and time finds the shelf's end at that time for all views at once.
        keys = self.topic * span + (self.published_at_us - oldest)
        count = np.searchsorted(keys, topics * span + (time_us - oldest)) - self.first[topics]
        place = self.first[topics] + np.floor(uniforms * np.maximum(count, 1)).astype(np.int64)
        return np.where(count > 0, self.document[np.minimum(place, len(self.document) - 1)], -1)


def draw_feed(world: World, sessions: Sessions, *, day: int, popularity: Float[np.ndarray, "documents"]) -> FeedViews:
    """Returns the feed views of a day: visits around the users' searches, and other visits.

    Each view is of the topic of the user's present need, of a lasting interest, of what is popular, or of any
    published document (shares in the constants). No document is viewed before it is published, none twice in a visit.
    Depends on the sessions' arrivals and first intents, not on what search showed.

    Args:
      popularity: clicks that each document has got.
    """
    rng = world.streams.generator("feed", day)
    constants = world.constants
    visits = _draw_visits(world, sessions, day, rng)
    visit = np.repeat(np.arange(len(visits.user)), rng.poisson(constants.feed_views_per_burst, len(visits.user)))
    # A visit's views follow one another at the pace of an ordinary view; the log keeps when each began.
    place = np.arange(len(visit)) - np.searchsorted(visit, visit)
    pace = _PAUSE_SECONDS + rng.exponential(10.0, len(visits.user))
    time = visits.start_us[visit] + np.round(place * pace[visit] * 1000).astype(np.int64) * 1000
    user, intent = visits.user[visit], visits.intent[visit]
    document = _recommend(world, user, intent, time, popularity, rng)

    _, kept = np.unique(visit * len(world.documents) + document, return_index=True)
    user, intent, time, document = (column[kept] for column in (user, intent, time, document))
    fit = _fit(world, user, intent, document)
    quality = world.documents.quality[document]
    watched = watch_seconds(fit, quality, rng.standard_normal(len(fit)), spread=constants.watch_spread)
    liked = likes(fit, rng.random(len(fit)))
    order = np.lexsort((document, user, time))
    return FeedViews(user[order], document[order], time[order], watched[order], liked[order])


def _draw_visits(world: World, sessions: Sessions, day: int, rng: np.random.Generator) -> _Visits:
    constants, users = world.constants, world.users
    beside = rng.random(len(sessions.user)) < constants.feed_with_search_share
    offset = np.round(rng.uniform(*_AROUND_SEARCH_SECONDS, len(sessions.user)) * 1000).astype(np.int64) * 1000
    others = np.repeat(np.arange(len(users)), rng.poisson(constants.feed_only_bursts_per_day, len(users)))
    midnight = constants.start_us + day * DAY_US
    other_start = midnight + rng.integers(0, DAY_US // 1000, len(others)) * 1000
    return _Visits(
        user=np.concatenate([sessions.user[beside], others]),
        start_us=np.concatenate([(sessions.start_us + offset)[beside], other_start]),
        intent=np.concatenate([sessions.need.intent[beside], np.full(len(others), _NO_NEED)]),
    )


def _recommend(
    world: World,
    user: np.ndarray,
    intent: np.ndarray,
    time: np.ndarray,
    popularity: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    constants, users, documents = world.constants, world.users, world.documents
    count = len(user)
    kind = rng.random(count)
    need_until = constants.feed_need_share
    interest_until = need_until + constants.feed_interest_share
    popular_until = interest_until + constants.feed_popular_share
    interest = draw_from_rows(users.interest_shares[user], rng.random(count))
    topic = np.where((kind < need_until) & (intent >= 0), intent // constants.facets, users.interests[user, interest])
    by_topic = _shelves(world).pick(topic, time, rng.random(count))

    published = np.searchsorted(documents.published_at_us, time)
    # Somewhat more than clicked documents can be popular: +.1 keeps the cumulative weights growing.
    cumulative = np.cumsum(popularity + 0.1)
    popular = np.searchsorted(cumulative, rng.random(count) * cumulative[np.maximum(published, 1) - 1], side="right")
    anything = np.floor(rng.random(count) * published).astype(np.int64)
    popular = np.minimum(popular, np.maximum(published, 1) - 1)
    chosen = np.where(kind < interest_until, by_topic, np.where(kind < popular_until, popular, anything))
    return np.where(chosen >= 0, chosen, anything)


def _shelves(world: World) -> _Shelves:
    topic = world.documents.subject.topic.astype(np.int64)
    order = np.argsort(topic, kind="stable")
    first = np.searchsorted(topic[order], np.arange(world.constants.topics))
    return _Shelves(order, topic[order], first, world.documents.published_at_us[order])


def _fit(world: World, user: np.ndarray, intent: np.ndarray, document: np.ndarray) -> np.ndarray:
    """Returns how well a document suits a viewer: its grade for the present need, or that of a lasting interest."""
    for_need = np.where(intent >= 0, world.intent_grades(np.maximum(intent, 0), document), 0)
    topic = world.documents.subject.topic[document]
    liked_topic = (world.users.interests[user] == topic[:, None]).any(axis=1)
    return np.maximum(for_need, np.where(liked_topic, RELEVANT_GRADE, 0)).astype(np.int64)
