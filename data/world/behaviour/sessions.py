"""Who searches for what and when, and what an unsatisfied user types next."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from data.world.truth.documents import DAY_US
from data.world.truth.lexicon import draw_from_rows
from data.world.world import World

# Hours and spreads of the two busy times of a day, and the share of the first.
_BUSY_HOURS = (12.5, 20.5)
_BUSY_SPREADS = (3.0, 2.0)
_MIDDAY_SHARE = 0.4
_LEAST_GAP_SECONDS = 2.0
# How readily a query is tried although it shares no word with the one before, or has words that documents dislike.
_NEW_WORDS_WEIGHT = 0.1
_UNLIKELY_WORDS_WEIGHT = 0.2


class Need(NamedTuple):
    """The query that a user types, and the intent behind it."""

    query: Int[np.ndarray, "*n"]
    intent: Int[np.ndarray, "*n"]


class Sessions(NamedTuple):
    """The search sessions of one day and all the chance in them, whatever an engine will answer.

    A session is one user with one intent, for as long as no other need comes up.
    """

    user: Int[np.ndarray, "sessions"]
    start_us: Int[np.ndarray, "sessions"]
    need: Need
    other_need: Need
    """[sessions, rounds]: what the user turns to when the need is dropped after that round."""
    click: Float[np.ndarray, "sessions rounds page"]
    like: Float[np.ndarray, "sessions rounds page"]
    watch: Float[np.ndarray, "sessions rounds page"]
    """Standard normal; the others are uniform in [0, 1)."""
    goes_on: Bool[np.ndarray, "sessions rounds"]
    """True if the user searches again after that round when unsatisfied."""
    drops_need: Bool[np.ndarray, "sessions rounds"]
    choice: Float[np.ndarray, "sessions rounds"]
    gap_seconds: Float[np.ndarray, "sessions rounds"]


@dataclass(frozen=True)
class Asks:
    """All (query, intent) pairs, sorted by intent and so by topic, to draw from by demand."""

    query: Int[np.ndarray, "pairs"]
    intent: Int[np.ndarray, "pairs"]
    share: Float[np.ndarray, "pairs"]
    """Popularity of the query times the share of its people who mean the intent."""
    facets: int

    @cached_property
    def _cumulative(self) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(self.share)])

    def draw(self, topics: Int[np.ndarray, "*n"], uniforms: Float[np.ndarray, "*n"]) -> Need:
        """A pair of each topic by share; of all pairs where the topic is -1 or nobody asks about it."""
        first = np.searchsorted(self.intent, topics * self.facets)
        last = np.searchsorted(self.intent, (topics + 1) * self.facets)
        anything = (topics < 0) | (first == last)
        low = np.where(anything, 0, first)
        high = np.where(anything, len(self.query), last)
        total = self._cumulative
        target = total[low] + uniforms * (total[high] - total[low])
        pair = np.clip(np.searchsorted(total, target, side="right") - 1, low, high - 1)
        return Need(self.query[pair], self.intent[pair])

    def of_intent(self, intent: int) -> Int[np.ndarray, "queries"]:
        """Queries that may mean an intent."""
        return self.query[slice(*np.searchsorted(self.intent, [intent, intent + 1]))]


def asks_of(world: World) -> Asks:
    queries = world.queries
    row, column = np.nonzero(queries.intents >= 0)
    intent = queries.intents[row, column]
    order = np.lexsort((row, intent))
    share = (queries.popularity[:, None] * queries.intent_shares)[row, column]
    return Asks(row[order], intent[order], share[order], world.constants.facets)


def draw_sessions(world: World, asks: Asks, *, day: int) -> Sessions:
    """The sessions that start on a day (from 0), by time; at least one.

    Nothing here depends on what an engine shows: arms of a comparison share users, needs and arrivals.
    """
    constants, users = world.constants, world.users
    rng = world.streams.generator("arrivals", day)
    counts = rng.poisson(users.sessions_per_day)
    if not counts.any():
        counts[rng.integers(len(users))] = 1
    user = np.repeat(np.arange(len(users)), counts)
    start = constants.start_us + day * DAY_US + _draw_times_of_day(len(user), rng)
    order = np.lexsort((user, start))
    user, start = user[order], start[order]

    rng = world.streams.generator("needs", day)
    rounds, page = constants.queries_per_session, constants.page_size
    need = _draw_needs(world, asks, user, rng)
    other = [_draw_needs(world, asks, user, rng) for _ in range(rounds)]
    rng = world.streams.generator("behaviour", day)
    shape = (len(user), rounds)
    gaps = np.log(constants.reformulation_median_seconds) + constants.reformulation_spread * rng.standard_normal(shape)
    return Sessions(
        user=user,
        start_us=start,
        need=need,
        other_need=Need(*(np.stack(column, axis=1) for column in zip(*other, strict=True))),
        click=rng.random((*shape, page)),
        like=rng.random((*shape, page)),
        watch=rng.standard_normal((*shape, page)),
        goes_on=rng.random(shape) < users.patience[user][:, None],
        drops_need=rng.random(shape) < constants.other_need_share,
        choice=rng.random(shape),
        gap_seconds=np.round(np.maximum(np.exp(gaps), _LEAST_GAP_SECONDS), 3),
    )


def reformulate(world: World, asks: Asks, *, intent: int, tried: list[int], uniform: float) -> int:
    """The next query of a user with this intent who has tried some, the last one most recently; -1 gives up.

    Drawn among the other queries that may mean the intent, by: how much of the query's people mean it, times words
    kept from the last query, times how documents like the words (people learn from the results they see).
    """
    candidates = asks.of_intent(intent)
    candidates = candidates[~np.isin(candidates, tried)]
    if not len(candidates):
        return -1
    queries = world.queries
    meant = (queries.intent_shares[candidates] * (queries.intents[candidates] == intent)).sum(axis=1)
    last = set(queries.text[tried[-1]].split())
    kept = np.array([len(last & set(words)) / len(words) for words in (queries.text[q].split() for q in candidates)])
    weights = meant * (_NEW_WORDS_WEIGHT + kept) * (_UNLIKELY_WORDS_WEIGHT + queries.document_likeness[candidates])
    return int(candidates[draw_from_rows(weights[None, :], np.array([uniform]))[0]])


def _draw_needs(world: World, asks: Asks, user: np.ndarray, rng: np.random.Generator) -> Need:
    """Mostly from the user's interests, else from what everybody asks."""
    users = world.users
    interest = draw_from_rows(users.interest_shares[user], rng.random(len(user)))
    topic = users.interests[user, interest]
    topic = np.where(rng.random(len(user)) < world.constants.interest_share, topic, -1)
    return asks.draw(topic, rng.random(len(user)))


def _draw_times_of_day(count: int, rng: np.random.Generator) -> np.ndarray:
    """Microseconds from midnight, whole milliseconds."""
    evening = (rng.random(count) >= _MIDDAY_SHARE).astype(int)
    hours = np.take(_BUSY_HOURS, evening) + np.take(_BUSY_SPREADS, evening) * rng.standard_normal(count)
    return np.round(np.mod(hours, 24) / 24 * (DAY_US - 1000) / 1000).astype(np.int64) * 1000
