"""All constants of the simulated world. The defaults are those of the small world.

The defaults were chosen as plausible values. data.world.presets has those of the large world, and says what they were
calibrated on.
"""

import datetime
from dataclasses import dataclass, fields
from typing import ClassVar

from crops_jax.program.help_rules import FlagGroups
from data.world.vocabulary import FACETS, FIELDS

# There are names for so many.
_MAX_ENTITIES = 200
_SHARES = (
    "initial_share",
    "secondary_topic_share",
    "synonym_loyalty",
    "entity_word_share",
    "entity_in_title_share",
    "entity_query_share",
    "category_error_share",
    "noise_word_share",
    "vocabulary_gap",
    "phrasing_loyalty",
    "interest_share",
    "patience",
    "other_need_share",
    "click_noise",
    "click_ceiling",
    "judged_query_share",
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
    "entities_per_topic",
    "phrasings_per_need",
    "interests_per_user",
    "queries_per_session",
    "recall_depth",
    "prerank_depth",
    "retriever_dimensions",
    "ranker_dimensions",
    "page_size",
    "knowledge_documents_per_query",
)
_NOT_NEGATIVE = (
    "logged_not_shown_per_stage",
    "judged_depth",
    "judged_relevant",
    "judged_random",
    "supply_exponent",
    "entity_exponent",
    "query_exponent",
    "popularity_bias",
    "popular_depth",
    "similar_items_depth",
    "category_depth",
    "clicked_words_depth",
    "initial_clicks",
    "prerank_lexical_weight",
    "prerank_semantic_weight",
    "prerank_popularity_weight",
    "affinity_weight",
    "rank_lexical_weight",
    "rank_semantic_weight",
    "rank_popularity_weight",
    "prerank_noise",
    "rank_noise",
    "position_exponent",
    "new_words_weight",
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
    """The sizes of the simulated world and the behaviour of its documents, users and engine."""

    documents: int = 3500
    """The number of documents of the catalogue at the end of the last day."""
    queries: int = 1000
    """The number of distinct query texts in the world."""
    users: int = 3000
    """The number of users, including users who never search."""
    days: int = 3
    """The number of days that are served and logged."""
    first_day: str = "2024-03-04"
    """The date of the first day in UTC."""

    topics: int = 120
    """The number of topics of the built-in vocabulary that are used."""
    supply_exponent: float = 0.6
    """The Zipf exponent of the number of documents by topic."""
    entities_per_topic: int = 1
    """The number of entities of a topic, such as its persons, products or places. A need is for one of them. With 1,
    no entity has a name.
    """
    entity_exponent: float = 0.6
    """The Zipf exponent of the number of documents, and of the demand, by entity within a topic."""
    entity_word_share: float = 0.3
    """The share of the words of a document that name its entity among those that would name its topic."""
    entity_in_title_share: float = 0.7
    """The share of documents whose title names the entity."""
    entity_query_share: float = 0.6
    """The share of query texts that name the entity."""
    initial_share: float = 0.8
    """The share of documents that are published before the first day. The others are published evenly over the days."""
    mean_initial_age_days: float = 30.0
    """The mean age, at the start of the first day, of the documents published before it (exponential distribution)."""
    secondary_topic_share: float = 0.25
    """The share of documents that have a second topic of the same field."""
    synonym_loyalty: float = 0.8
    """The probability that a document names a thing by its preferred word. Otherwise the word is drawn again."""
    noise_word_share: float = 0.08
    """The share of the words of a document that are unrelated to its topics."""
    vocabulary_gap: float = 0.5
    """The share of things for which users prefer the words that documents use least often."""
    poor_quality: float = -1.0
    """The quality threshold (quality is standard normal). A document below it gets one grade less for every need."""

    query_exponent: float = 0.7
    """The Zipf exponent of the frequency of queries."""
    phrasings_per_need: int = 4
    """The number of query texts that are drawn for each need."""
    phrasing_loyalty: float = 0.7
    """The probability that a text of a need names a thing as its first text does. Otherwise the word is drawn again."""

    sessions_per_user_per_day: float = 1.3
    """The mean number of search sessions of a user in a day (gamma distribution over users)."""
    interests_per_user: int = 4
    """The number of topics that each user is interested in permanently."""
    interest_share: float = 0.8
    """The share of needs that are drawn from the interests of the user. The others are drawn from all needs."""
    queries_per_session: int = 4
    """The maximum number of searches in a session."""
    patience: float = 0.6
    """The mean probability that an unsatisfied user searches again."""
    other_need_share: float = 0.15
    """The share of the further searches of unsatisfied users that are for a different need."""
    new_words_weight: float = 0.1
    """The weight, in the choice of the next query, of a query without a word of the last one. The share of words that
    are kept adds to it.
    """
    reformulation_median_seconds: float = 30.0
    """The median time to the next search of a session (log-normal distribution: 82 % are within 90 s)."""
    reformulation_spread: float = 1.2
    """The standard deviation of the logarithm of the time to the next search of a session."""

    recall_depth: int = 30
    """The maximum number of documents that each retriever returns for a search."""
    prerank_depth: int = 25
    """The maximum number of documents that pre-ranking passes to ranking."""
    page_size: int = 10
    """The maximum number of documents that a search shows."""
    logged_not_shown_per_stage: int = 8
    """The maximum number of candidates not shown that a search logs for each stage. They are drawn at random."""
    popular_depth: int = 0
    """The maximum number of documents from the channel of popular documents: those of the query's category."""
    similar_items_depth: int = 0
    """The maximum number of documents from the item-to-item channel: those that users of clicked documents clicked."""
    clicked_words_depth: int = 0
    """The maximum number of documents from the channel of clicked words: documents that were clicked for queries with
    the words of the query.
    """
    initial_clicks: int = 0
    """The number of clicks with a query from before the first day, which that channel and the ranking know."""
    category_depth: int = 0
    """The maximum number of documents from the category channel: any documents of the query's category."""
    category_error_share: float = 0.1
    """The share of documents whose author chose a random category. The category of the others is their topic."""
    retriever_dimensions: int = 32
    """The number of dimensions of the latent space of the present retriever. With fewer dimensions than there are
    topics it separates fields well and topics only roughly.
    """
    ranker_dimensions: int = 128
    """The number of dimensions of the latent space of pre-ranking and ranking."""
    affinity_weight: float = 0.0
    """The weight, in the scores of pre-ranking and ranking, of the cosine of the query and the clicked words."""
    prerank_lexical_weight: float = 0.5
    """The weight of the lexical score in the pre-ranking score."""
    prerank_semantic_weight: float = 0.5
    """The weight of the cosine in the pre-ranking score."""
    prerank_popularity_weight: float = 0.2
    """The weight of the logarithm of popularity in the pre-ranking score."""
    rank_lexical_weight: float = 0.4
    """The weight of the lexical score in the ranking score. The lexical score is in [0, 1]."""
    rank_semantic_weight: float = 0.8
    """The weight of the cosine in the ranking score."""
    rank_popularity_weight: float = 0.3
    """The weight of the logarithm of popularity in the ranking score. The logarithm is scaled to [0, 1]."""
    popularity_bias: float = 0.3
    """The weight of the logarithm of popularity in the score of the present retriever. The cosine has weight 1."""
    prerank_noise: float = 0.1
    """The standard deviation of the noise in the pre-ranking score. The score is approximately in [0, 1.2]."""
    rank_noise: float = 0.05
    """The standard deviation of the noise in the ranking score. The score is approximately in [0, 1.5]."""

    click_noise: float = 0.1
    """The probability that a user clicks a document of grade 0 that the user examines."""
    click_ceiling: float = 1.0
    """The probability that a user clicks a document of the greatest grade that the user examines."""
    position_exponent: float = 0.7
    """The exponent of position bias. The probability that a user examines position k is k ** -position_exponent."""
    watch_spread: float = 0.8
    """The standard deviation of the logarithm of a watch time."""
    satisfied_watch_seconds: float = 20.0
    """The minimum watch time of a clicked document that satisfies its user, so that the session ends."""

    feed_with_search_share: float = 0.7
    """The share of search sessions that have a feed visit shortly before or after their start."""
    feed_only_bursts_per_day: float = 0.5
    """The mean number of other feed visits of a user in a day."""
    feed_views_per_burst: float = 5.0
    """The mean number of documents that are viewed in a feed visit."""
    feed_need_share: float = 0.35
    """The share of feed views that are on the topic of the present need of the user."""
    feed_interest_share: float = 0.3
    """The share of feed views that are on the permanent interests of the user."""
    feed_popular_share: float = 0.2
    """The share of feed views that are of popular documents. The remaining views are of any published document."""

    judged_query_share: float = 1.0
    """The share of queries that are judged."""
    judged_depth: int = 10
    """The number of documents that BM25 and the ranking model each add to the judgement pool of a query."""
    judged_relevant: int = 10
    """The number of relevant documents, retrieved or not, that are added to the judgement pool of a query at random."""
    judged_random: int = 5
    """The number of documents of any grade that are added to the judgement pool of a query at random."""

    knowledge_query_share: float = 0.6
    """The share of queries that the simulated language model writes documents for."""
    knowledge_documents_per_query: int = 2
    """The number of documents that the simulated language model writes for each of these queries."""
    knowledge_error_rate: float = 0.1
    """The share of the documents of the simulated language model that are written for a random intent."""
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "size": ("documents", "queries", "users", "days", "first_day"),
        "catalogue": (
            "topics",
            "supply_exponent",
            "entities_per_topic",
            "entity_exponent",
            "entity_word_share",
            "entity_in_title_share",
            "entity_query_share",
            "initial_share",
            "mean_initial_age_days",
            "secondary_topic_share",
            "synonym_loyalty",
            "noise_word_share",
            "vocabulary_gap",
            "poor_quality",
        ),
        "query": ("query_exponent", "phrasings_per_need", "phrasing_loyalty"),
        "session": (
            "sessions_per_user_per_day",
            "interests_per_user",
            "interest_share",
            "queries_per_session",
            "patience",
            "other_need_share",
            "new_words_weight",
            "reformulation_median_seconds",
            "reformulation_spread",
        ),
        "engine": (
            "recall_depth",
            "prerank_depth",
            "page_size",
            "logged_not_shown_per_stage",
            "popular_depth",
            "similar_items_depth",
            "clicked_words_depth",
            "initial_clicks",
            "category_depth",
            "category_error_share",
            "retriever_dimensions",
            "ranker_dimensions",
            "affinity_weight",
            "prerank_lexical_weight",
            "prerank_semantic_weight",
            "prerank_popularity_weight",
            "rank_lexical_weight",
            "rank_semantic_weight",
            "rank_popularity_weight",
            "popularity_bias",
            "prerank_noise",
            "rank_noise",
        ),
        "click": ("click_noise", "click_ceiling", "position_exponent", "watch_spread", "satisfied_watch_seconds"),
        "feed": (
            "feed_with_search_share",
            "feed_only_bursts_per_day",
            "feed_views_per_burst",
            "feed_need_share",
            "feed_interest_share",
            "feed_popular_share",
        ),
        "judgement": ("judged_query_share", "judged_depth", "judged_relevant", "judged_random"),
        "knowledge": ("knowledge_query_share", "knowledge_documents_per_query", "knowledge_error_rate"),
    }

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
        topic_count = sum(len(field.topics) for field in FIELDS)
        _require(
            self.topics <= topic_count,
            "topics",
            f"must be at most {topic_count}, the number of topics of the built-in vocabulary",
            self.topics,
        )
        _require(
            self.entities_per_topic <= _MAX_ENTITIES,
            "entities_per_topic",
            f"must be at most {_MAX_ENTITIES}",
            self.entities_per_topic,
        )
        _require(self.click_noise <= self.click_ceiling, "click_noise", "must be <= --click-ceiling", self.click_noise)
        feed = self.feed_need_share + self.feed_interest_share + self.feed_popular_share
        _require(feed <= 1 + 1e-9, "feed_need_share + feed_interest_share + feed_popular_share", "must be <= 1", feed)
        try:
            parse_day(self.first_day)
        except ValueError:
            _require(False, "first_day", "must be a date such as 2024-03-04", self.first_day)

    @property
    def facets(self) -> int:
        """The number of facets of the built-in vocabulary."""
        return len(FACETS)

    @property
    def intents_per_topic(self) -> int:
        """The number of intents of a topic: one for each entity and facet."""
        return self.entities_per_topic * self.facets

    @property
    def start_us(self) -> int:
        """The start of the first day in microseconds since 1970, UTC."""
        return parse_day(self.first_day)


def parse_day(date: str) -> int:
    """Returns midnight UTC of an ISO date in microseconds since 1970. Raises ValueError if the date is not valid."""
    return int(datetime.datetime.fromisoformat(f"{date}T00:00:00+00:00").timestamp()) * 1_000_000


def _require(condition: bool, name: str, rule: str, value: object) -> None:
    """Raises ValueError, which names the flag, its rule and its value, unless the condition is true."""
    if not condition:
        raise ValueError(f"--{name.replace('_', '-')} {rule}, found {value}")
