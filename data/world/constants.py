"""Every number of the simulated world, in one place.

Fixed once from what is plausible and never fitted to what a trained retriever gets on the world.
"""

import datetime
from dataclasses import dataclass, fields

from data.world.vocabulary import FACETS, FIELDS

_SHARES = (
    "initial_share",
    "secondary_topic_share",
    "synonym_loyalty",
    "noise_word_share",
    "vocabulary_gap",
    "phrasing_loyalty",
    "interest_share",
    "patience",
    "other_need_share",
    "click_noise",
    "feed_with_search_share",
    "feed_need_share",
    "feed_interest_share",
    "feed_popular_share",
    "knowledge_query_share",
    "knowledge_error_rate",
)
_POSITIVE_INTEGERS = (
    "documents",
    "queries",
    "users",
    "days",
    "topics",
    "phrasings_per_need",
    "interests_per_user",
    "queries_per_session",
    "recall_depth",
    "prerank_depth",
    "page_size",
    "knowledge_documents_per_query",
)
_NOT_NEGATIVE = (
    "logged_not_shown_per_stage",
    "judged_depth",
    "judged_relevant",
    "judged_random",
    "supply_exponent",
    "query_exponent",
    "popularity_bias",
    "prerank_noise",
    "rank_noise",
    "position_exponent",
    "feed_only_bursts_per_day",
)
_POSITIVE = (
    "mean_initial_age_days",
    "sessions_per_user_per_day",
    "reformulation_median_seconds",
    "reformulation_spread",
    "watch_spread",
    "satisfied_watch_seconds",
    "feed_views_per_burst",
)


@dataclass(frozen=True, kw_only=True)
class WorldConstants:
    """Sizes and behaviour of the simulated world."""

    documents: int = 3500
    """The number of documents of the catalogue at the end of the last day."""
    queries: int = 1000
    """The number of distinct query texts that users can think of."""
    users: int = 3000
    """The number of users, whether or not they search."""
    days: int = 3
    """The number of days that are served and logged."""
    first_day: str = "2024-03-04"
    """The date of the first day, UTC."""

    topics: int = 120
    """The number of topics of the built-in vocabulary that exist in this world."""
    supply_exponent: float = 0.6
    """Zipf exponent of documents over topics."""
    initial_share: float = 0.8
    """The share of the documents published before the first day; the others arrive evenly over the days."""
    mean_initial_age_days: float = 30.0
    """Mean age of the former when the first day begins (exponential)."""
    secondary_topic_share: float = 0.25
    """The share of documents that touch a second topic of the same field."""
    synonym_loyalty: float = 0.8
    """The probability that a document repeats its own word for a thing rather than a synonym."""
    noise_word_share: float = 0.08
    """The share of a document's words that have nothing to do with it."""
    vocabulary_gap: float = 0.5
    """The share of things for which people search with the words that documents use least."""
    poor_quality: float = -1.0
    """Documents of lower quality (standard normal) answer any need one grade worse."""

    query_exponent: float = 0.7
    """The Zipf exponent of the frequency of queries."""
    phrasings_per_need: int = 4
    """Query texts that are made for each need drawn."""
    phrasing_loyalty: float = 0.7
    """The probability that users name a thing by the same word (people rather add, drop or change one word than
    all).
    """

    sessions_per_user_per_day: float = 1.3
    """Mean number of needs that a user searches for in a day (gamma-distributed over users)."""
    interests_per_user: int = 4
    """Topics a user comes back to."""
    interest_share: float = 0.8
    """The share of needs that come from the user's interests rather than from what everybody asks."""
    queries_per_session: int = 4
    """Most searches for one need."""
    patience: float = 0.6
    """The mean probability that an unsatisfied user searches again."""
    other_need_share: float = 0.15
    """The share of such searches that are for another need altogether."""
    reformulation_median_seconds: float = 30.0
    """Median time to the next search of a session (log-normal: 82 % come within 90 s)."""
    reformulation_spread: float = 1.2
    """The standard deviation of that time's logarithm."""

    recall_depth: int = 30
    """The number of documents that each recall channel brings."""
    prerank_depth: int = 25
    """The number of documents that pre-ranking lets through to ranking."""
    page_size: int = 10
    """The number of documents shown."""
    logged_not_shown_per_stage: int = 8
    """Logged candidates of either stage before showing, a search; drawn at random among those that were there."""
    popularity_bias: float = 0.3
    """Weight of log-popularity in the present retriever, beside a cosine."""
    prerank_noise: float = 0.1
    """The standard deviation of the noise in the pre-ranking score, which lies in about [0, 1.2]."""
    rank_noise: float = 0.05
    """The same for the ranking score, in about [0, 1.5]."""

    click_noise: float = 0.1
    """The attractiveness of a document of grade 0, given that it is examined."""
    position_exponent: float = 0.7
    """Examination of position k is k ** -position_exponent."""
    watch_spread: float = 0.8
    """The standard deviation of the logarithm of a watch time."""
    satisfied_watch_seconds: float = 20.0
    """A search is a success for its user when one clicked document was watched this long."""

    feed_with_search_share: float = 0.7
    """The share of search sessions with a visit to the feed in the minutes around them."""
    feed_only_bursts_per_day: float = 0.5
    """Mean number of other visits to the feed, a user and day."""
    feed_views_per_burst: float = 5.0
    """Mean number of documents seen in a visit."""
    feed_need_share: float = 0.35
    """The share of the feed spent on the topic the user is searching for at the time."""
    feed_interest_share: float = 0.3
    """... on the user's lasting interests."""
    feed_popular_share: float = 0.2
    """... on what is popular. The rest is exploration: any published document."""

    judged_depth: int = 10
    """The depth of the BM25 and ranking-model runs that are pooled for judgement, beside all that was shown."""
    judged_relevant: int = 10
    """The number of relevant documents added to a query's pool at random, so that not only what the engine finds is
    judged.
    """
    judged_random: int = 5
    """The number of documents added at random."""

    knowledge_query_share: float = 0.6
    """The share of queries that the simulated language model writes for."""
    knowledge_documents_per_query: int = 2
    """The number of documents that it writes for each of them."""
    knowledge_error_rate: float = 0.1
    """The share of its documents that are about something else."""

    def __post_init__(self) -> None:
        for name in _POSITIVE_INTEGERS:
            _require(getattr(self, name) >= 1, name, "must be at least 1", getattr(self, name))
        for name in _NOT_NEGATIVE:
            _require(getattr(self, name) >= 0, name, "must not be negative", getattr(self, name))
        for name in _POSITIVE:
            _require(getattr(self, name) > 0, name, "must be positive", getattr(self, name))
        for name in _SHARES:
            _require(0 <= getattr(self, name) <= 1, name, "must lie in [0, 1]", getattr(self, name))
        for field in fields(self):
            value = getattr(self, field.name)
            _require(not isinstance(value, float) or value - value == 0, field.name, "must be finite", value)
        known = sum(len(field.topics) for field in FIELDS)
        _require(self.topics <= known, "topics", f"must be at most {known}, the built-in vocabulary's", self.topics)
        feed = self.feed_need_share + self.feed_interest_share + self.feed_popular_share
        _require(feed <= 1 + 1e-9, "feed_need_share + feed_interest_share + feed_popular_share", "must be <= 1", feed)
        try:
            parse_day(self.first_day)
        except ValueError:
            _require(False, "first_day", "must be a date such as 2024-03-04", self.first_day)

    @property
    def facets(self) -> int:
        return len(FACETS)

    @property
    def start_us(self) -> int:
        """Begin of the first day in microseconds since 1970, UTC."""
        return parse_day(self.first_day)


def parse_day(date: str) -> int:
    """Midnight UTC of an ISO date in microseconds since 1970. Raises ValueError."""
    return int(datetime.datetime.fromisoformat(f"{date}T00:00:00+00:00").timestamp()) * 1_000_000


def _require(condition: bool, name: str, rule: str, found: object) -> None:
    if not condition:
        raise ValueError(f"--{name.replace('_', '-')} {rule}, found {found}")
