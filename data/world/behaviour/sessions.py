"""Search sessions: the users, needs and times of a day, and the next query of an unsatisfied user."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from data.world.truth.documents import DAY_US
from data.world.truth.lexicon import draw_from_rows
from data.world.world import World

# Two normal distributions describe the times of day: their means and standard deviations in hours, and the share of
# the first one.
_BUSY_HOURS = (12.5, 20.5)
_BUSY_SPREADS = (3.0, 2.0)
_MIDDAY_SHARE = 0.4
_MIN_GAP_SECONDS = 2.0
# These constants keep the weight of a query positive if it shares no word with the previous query, and if documents
# do not prefer its words.
_UNLIKELY_WORDS_WEIGHT = 0.2


class Need(NamedTuple):
    """The query that a user types, and the intent behind it."""

    query: Int[np.ndarray, "*n"]
    intent: Int[np.ndarray, "*n"]


class Sessions(NamedTuple):
    """The search sessions of one day, with all their random numbers, which do not depend on any engine.

    A session is one user with one intent, until the user changes to another need.
    """

    user: Int[np.ndarray, "sessions"]
    start_us: Int[np.ndarray, "sessions"]
    need: Need
    other_need: Need
    """The need that replaces the present one if the user drops it after that round, [sessions, rounds]."""
    click: Float[np.ndarray, "sessions rounds page"]
    like: Float[np.ndarray, "sessions rounds page"]
    watch: Float[np.ndarray, "sessions rounds page"]
    """Standard normal numbers. The numbers of click, like and choice are uniform in [0, 1)."""
    goes_on: Bool[np.ndarray, "sessions rounds"]
    """True if an unsatisfied user searches again after that round."""
    drops_need: Bool[np.ndarray, "sessions rounds"]
    """True if a user who searches again changes to another need."""
    choice: Float[np.ndarray, "sessions rounds"]
    """The number that selects the next query for the same need."""
    gap_seconds: Float[np.ndarray, "sessions rounds"]
    """The time from the search of that round to the next search."""


@dataclass(frozen=True)
class Asks:
    """All (query, intent) pairs, which are drawn by demand. They are sorted by intent, and therefore by topic."""

    query: Int[np.ndarray, "pairs"]
    intent: Int[np.ndarray, "pairs"]
    share: Float[np.ndarray, "pairs"]
    """The popularity of the query times the share of its users who mean the intent."""
    intents_per_topic: int

    @cached_property
    def _cumulative(self) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(self.share)])

    def draw(self, topics: Int[np.ndarray, "*n"], uniforms: Float[np.ndarray, "*n"]) -> Need:
        """Draws one pair of each topic by share. It draws from all pairs if the topic is -1 or has no pair."""
        first = np.searchsorted(self.intent, topics * self.intents_per_topic)
        last = np.searchsorted(self.intent, (topics + 1) * self.intents_per_topic)
        unrestricted = (topics < 0) | (first == last)
        low = np.where(unrestricted, 0, first)
        high = np.where(unrestricted, len(self.query), last)
        total = self._cumulative
        target = total[low] + uniforms * (total[high] - total[low])
        pair = np.clip(np.searchsorted(total, target, side="right") - 1, low, high - 1)
        return Need(self.query[pair], self.intent[pair])

    def of_intent(self, intent: int) -> Int[np.ndarray, "queries"]:
        """Returns the queries that can mean an intent."""
        return self.query[slice(*np.searchsorted(self.intent, [intent, intent + 1]))]


def asks_of(world: World) -> Asks:
    """Returns all (query, intent) pairs of a world."""
    queries = world.queries
    row, column = np.nonzero(queries.intents >= 0)
    intent = queries.intents[row, column]
    order = np.lexsort((row, intent))
    share = (queries.popularity[:, None] * queries.intent_shares)[row, column]
    return Asks(row[order], intent[order], share[order], world.constants.intents_per_topic)


def draw_sessions(world: World, asks: Asks, *, day: int) -> Sessions:
    """Returns the sessions that start on a day, at least one, in order of time; the first day is 0.

    The sessions do not depend on the documents that an engine shows, so that the arms of a comparison (the systems that
    it compares) have the same users, needs and arrivals.
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
        gap_seconds=np.round(np.maximum(np.exp(gaps), _MIN_GAP_SECONDS), 3),
    )


def reformulate(world: World, asks: Asks, *, intent: int, tried: list[int], uniform: float) -> int:
    """Returns the next query of a user who was not satisfied, or -1 if no untried query can mean the intent.

    The query is drawn from the untried queries that can mean the intent. Its weight is the product of the share of its
    users who mean the intent, of the share of its words that are in the last query (plus a constant), and of the
    preference of documents for its words (plus a constant), because users learn words from the results.

    Args:
      world: the world.
      asks: the (query, intent) pairs of the world.
      intent: the intent of the user.
      tried: the queries of the session so far, the latest one last.
      uniform: a number in [0, 1) that selects the query.
    """
    candidates = asks.of_intent(intent)
    candidates = candidates[~np.isin(candidates, tried)]
    if not len(candidates):
        return -1
    queries = world.queries
    meant = (queries.intent_shares[candidates] * (queries.intents[candidates] == intent)).sum(axis=1)
    last = set(queries.words[tried[-1]])
    kept = np.array([len(last & set(words)) / len(words) for words in (queries.words[q] for q in candidates)])
    weights = (
        meant
        * (world.constants.new_words_weight + kept)
        * (_UNLIKELY_WORDS_WEIGHT + queries.document_likeness[candidates])
    )
    return int(candidates[draw_from_rows(weights[None, :], np.array([uniform]))[0]])


def _draw_needs(world: World, asks: Asks, user: np.ndarray, rng: np.random.Generator) -> Need:
    """Draws one need for each user: from an interest with the probability `interest_share`, else from all pairs."""
    users = world.users
    interest = draw_from_rows(users.interest_shares[user], rng.random(len(user)))
    topic = users.interests[user, interest]
    topic = np.where(rng.random(len(user)) < world.constants.interest_share, topic, -1)
    return asks.draw(topic, rng.random(len(user)))


def _draw_times_of_day(count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns times of day in microseconds from midnight, rounded to milliseconds."""
    evening = (rng.random(count) >= _MIDDAY_SHARE).astype(int)
    hours = np.take(_BUSY_HOURS, evening) + np.take(_BUSY_SPREADS, evening) * rng.standard_normal(count)
    return np.round(np.mod(hours, 24) / 24 * (DAY_US - 1000) / 1000).astype(np.int64) * 1000
