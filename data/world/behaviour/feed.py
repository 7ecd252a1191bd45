"""The recommendation feed. It knows the interests and the current need of each user but no query text, and explores."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from data.world.behaviour.clicks import likes, watch_seconds
from data.world.behaviour.sessions import Sessions
from data.world.truth.documents import DAY_US
from data.world.truth.lexicon import draw_from_rows
from data.world.world import RELEVANT_GRADE, World

# A feed visit that belongs to a session starts within this interval, in seconds from the start of the session.
_AROUND_SEARCH_SECONDS = (-900.0, 1200.0)
_PAUSE_SECONDS = 2.0
_NO_NEED = -1


class FeedViews(NamedTuple):
    """Feed views, sorted by time, then by user, then by document."""

    user: Int[np.ndarray, "views"]
    document: Int[np.ndarray, "views"]
    time_us: Int[np.ndarray, "views"]
    watch_seconds: Float[np.ndarray, "views"]
    liked: Bool[np.ndarray, "views"]


class _Visits(NamedTuple):
    """Visits to the feed; the intent is -1 for a visit that belongs to no session."""

    user: Int[np.ndarray, "visits"]
    start_us: Int[np.ndarray, "visits"]
    intent: Int[np.ndarray, "visits"]


@dataclass(frozen=True)
class _GroupedDocuments:
    """The documents sorted by group, a topic or an entity, and by time of publication within a group."""

    document: Int[np.ndarray, "documents"]
    group: Int[np.ndarray, "documents"]
    first: Int[np.ndarray, "groups"]
    """The index of the first document of each group."""
    published_at_us: Int[np.ndarray, "documents"]

    def pick(
        self, groups: Int[np.ndarray, "n"], time_us: Int[np.ndarray, "n"], uniforms: Float[np.ndarray, "n"]
    ) -> Int[np.ndarray, "n"]:
        """Returns a document of each group that was published before that time, or -1 if the group has none."""
        oldest = self.published_at_us.min()
        span = max(self.published_at_us.max(), time_us.max(initial=0)) - oldest + 1
        # The keys increase with group and time, so one search counts the published documents of a group for all views.
        keys = self.group * span + (self.published_at_us - oldest)
        count = np.searchsorted(keys, groups * span + (time_us - oldest)) - self.first[groups]
        index = self.first[groups] + np.floor(uniforms * np.maximum(count, 1)).astype(np.int64)
        return np.where(count > 0, self.document[np.minimum(index, len(self.document) - 1)], -1)


def draw_feed(world: World, sessions: Sessions, *, day: int, popularity: Float[np.ndarray, "documents"]) -> FeedViews:
    """Returns the feed views of a day: visits around the users' searches, and other visits.

    Each view is of a document on the topic of the user's present need, of a document on a lasting interest, of a
    popular document, or of any published document; the constants contain the shares. No document is viewed before it is
    published, and none is viewed twice in a visit. The views depend on the start times and the first intents of the
    sessions, not on the documents that the search engine showed.

    Args:
      world: the world.
      sessions: the search sessions of the day.
      day: the number of the day; the first day is 0.
      popularity: the number of clicks on each document before the day.
    """
    rng = world.streams.generator("feed", day)
    constants = world.constants
    visits = _draw_visits(world, sessions, day, rng)
    visit = np.repeat(np.arange(len(visits.user)), rng.poisson(constants.feed_views_per_burst, len(visits.user)))
    # The views of a visit start at equal intervals; the log contains the time at which each view starts.
    position = np.arange(len(visit)) - np.searchsorted(visit, visit)
    interval = _PAUSE_SECONDS + rng.exponential(10.0, len(visits.user))
    time = visits.start_us[visit] + np.round(position * interval[visit] * 1000).astype(np.int64) * 1000
    user, intent = visits.user[visit], visits.intent[visit]
    document = _recommend(world, user, intent, time, popularity, rng)

    # A document that a visit repeats counts only once.
    _, kept = np.unique(visit * len(world.documents) + document, return_index=True)
    user, intent, time, document = (column[kept] for column in (user, intent, time, document))
    fit = _grade_fit(world, user, intent, document)
    quality = world.documents.quality[document]
    watched = watch_seconds(fit, quality, rng.standard_normal(len(fit)), spread=constants.watch_spread)
    liked = likes(fit, rng.random(len(fit)))
    order = np.lexsort((document, user, time))
    return FeedViews(user[order], document[order], time[order], watched[order], liked[order])


def _draw_visits(world: World, sessions: Sessions, day: int, rng: np.random.Generator) -> _Visits:
    """Draws the visits around sessions, then the other visits, which start at any time of the day."""
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
    """Returns one document for each view. A topic without a published document yields any published document."""
    constants, users, documents = world.constants, world.users, world.documents
    count = len(user)
    kind = rng.random(count)
    need_until = constants.feed_need_share
    interest_until = need_until + constants.feed_interest_share
    popular_until = interest_until + constants.feed_popular_share
    interest = draw_from_rows(users.interest_shares[user], rng.random(count))
    for_need, uniforms = (kind < need_until) & (intent >= 0), rng.random(count)
    by_interest = _group_documents(documents.subject.topic.astype(np.int64), constants.topics, world)
    groups = constants.topics * constants.entities_per_topic
    by_need = _group_documents(world.entity_group, groups, world)
    by_topic = np.where(
        for_need,
        by_need.pick(np.maximum(intent, 0) // constants.facets, time, uniforms),
        by_interest.pick(users.interests[user, interest], time, uniforms),
    )

    published = np.searchsorted(documents.published_at_us, time)
    # The .1 makes the cumulative weights increase at every document, so that documents without clicks are drawn too.
    cumulative = np.cumsum(popularity + 0.1)
    popular = np.searchsorted(cumulative, rng.random(count) * cumulative[np.maximum(published, 1) - 1], side="right")
    anything = np.floor(rng.random(count) * published).astype(np.int64)
    popular = np.minimum(popular, np.maximum(published, 1) - 1)
    chosen = np.where(kind < interest_until, by_topic, np.where(kind < popular_until, popular, anything))
    return np.where(chosen >= 0, chosen, anything)


def _group_documents(group: np.ndarray, groups: int, world: World) -> _GroupedDocuments:
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], np.arange(groups))
    return _GroupedDocuments(order, group[order], first, world.documents.published_at_us[order])


def _grade_fit(world: World, user: np.ndarray, intent: np.ndarray, document: np.ndarray) -> np.ndarray:
    """Returns how well each document fits its viewer, 0 to 3.

    It is the maximum of the grade for the present need and of RELEVANT_GRADE if the topic is a lasting interest.
    """
    for_need = np.where(intent >= 0, world.intent_grades(np.maximum(intent, 0), document), 0)
    topic = world.documents.subject.topic[document]
    liked_topic = (world.users.interests[user] == topic[:, None]).any(axis=1)
    return np.maximum(for_need, np.where(liked_topic, RELEVANT_GRADE, 0)).astype(np.int64)
