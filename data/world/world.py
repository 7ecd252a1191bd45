"""The world of one seed, and what is true in it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from data.world.constants import WorldConstants
from data.world.streams import Streams
from data.world.truth.documents import Documents, draw_documents
from data.world.truth.lexicon import Lexicon, draw_lexicon
from data.world.truth.queries import Queries, draw_queries
from data.world.truth.users import Users, draw_users

MAX_GRADE = 3
RELEVANT_GRADE = 2
"""The minimum grade of a relevant document."""
_INITIAL_POPULARITY_SPREAD = 1.2


@dataclass(frozen=True)
class World:
    """Documents, queries and users; everything that no engine and no provider has a hand in.

    The truth is in the methods `intent_grades` and `query_grades`. A log holds none of it but through judgements.
    """

    constants: WorldConstants
    streams: Streams
    lexicon: Lexicon
    documents: Documents
    queries: Queries
    users: Users

    def intent_grades(self, intents: Int[np.ndarray, "*n"], documents: Int[np.ndarray, "*n"]) -> Int8[np.ndarray, "*n"]:
        """Returns how well each document answers its intent (the two arrays broadcast), 0 to 3.

        3: its topic and facet; 2: its topic, another facet; 1: its topic is the document's second one; 0: neither.
        One less, not below 0, for documents of poor quality.
        """
        topic, facet = np.divmod(intents, self.constants.facets)
        subject = self.documents.subject
        same_topic = subject.topic[documents] == topic
        grade = np.where(same_topic, 2 + (subject.facet[documents] == facet), subject.secondary[documents] == topic)
        poor = self.documents.quality[documents] < self.constants.poor_quality
        return np.maximum(grade - poor, 0).astype(np.int8)

    def query_grades(
        self, queries: Int[np.ndarray, "queries"], documents: Int[np.ndarray, "documents"] | None = None
    ) -> Int8[np.ndarray, "queries documents"]:
        """Grade of documents (default: all) for queries: the best over the query's intents."""
        documents = np.arange(len(self.documents)) if documents is None else documents
        best = np.zeros((len(queries), len(documents)), np.int8)
        for intents in self.queries.intents[queries].T:
            grade = self.intent_grades(intents[:, None], documents[None, :])
            best = np.maximum(best, np.where(intents[:, None] >= 0, grade, 0))
        return best

    def pair_grades(self, queries: Int[np.ndarray, "n"], documents: Int[np.ndarray, "n"]) -> Int8[np.ndarray, "n"]:
        """Grade of each (query, document) pair: the best over the query's intents."""
        intents = self.queries.intents[queries]
        grade = self.intent_grades(intents, documents[:, None])
        return np.where(intents >= 0, grade, 0).max(axis=1).astype(np.int8)

    def published_before(self, time_us: int) -> Bool[np.ndarray, "documents"]:
        return self.documents.published_at_us < time_us

    @cached_property
    def initial_popularity(self) -> Float[np.ndarray, "documents"]:
        """Clicks from before the first day: heavy-tailed, better for good and old documents, 0 for later ones."""
        constants, rng = self.constants, self.streams.generator("initial popularity")
        luck = rng.lognormal(sigma=_INITIAL_POPULARITY_SPREAD, size=len(self.documents))
        age_days = (constants.start_us - self.documents.published_at_us) / 86_400e6
        seen = 1 - np.exp(-np.maximum(age_days, 0) / constants.mean_initial_age_days)
        return np.round(10 * luck * np.exp(0.5 * self.documents.quality) * seen)


def draw_world(constants: WorldConstants, *, seed: int) -> World:
    """The world of a seed: the same for the same constants and seed. Raises InputError for a negative seed."""
    streams = Streams(seed)
    lexicon = draw_lexicon(constants, streams)
    return World(
        constants=constants,
        streams=streams,
        lexicon=lexicon,
        documents=draw_documents(lexicon, constants, streams),
        queries=draw_queries(lexicon, constants, streams),
        users=draw_users(constants, streams),
    )
