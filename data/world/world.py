"""The world of one seed, and the true grades of its documents."""

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
    """The documents, queries and users of one seed, which do not depend on any engine or language model.

    The methods `intent_grades`, `query_grades` and `pair_grades` return the truth. A log contains the truth only as
    judgements.
    """

    constants: WorldConstants
    streams: Streams
    lexicon: Lexicon
    documents: Documents
    queries: Queries
    users: Users

    def split_intents(
        self, intents: Int[np.ndarray, "*n"]
    ) -> tuple[Int[np.ndarray, "*n"], Int[np.ndarray, "*n"], Int[np.ndarray, "*n"]]:
        """Returns the topic, the entity and the facet of each intent."""
        group, facet = np.divmod(intents, self.constants.facets)
        topic, entity = np.divmod(group, self.constants.entities_per_topic)
        return topic, entity, facet

    @cached_property
    def entity_group(self) -> Int[np.ndarray, "documents"]:
        """The number of the topic and entity of each document: topic * entities + entity, as in intent // facets."""
        subject = self.documents.subject
        entity = 0 if subject.entity is None else subject.entity
        return subject.topic.astype(np.int64) * self.constants.entities_per_topic + entity

    def intent_grades(self, intents: Int[np.ndarray, "*n"], documents: Int[np.ndarray, "*n"]) -> Int8[np.ndarray, "*n"]:
        """Returns the grade of each document for its intent, 0 to 3; the two arrays broadcast.

        The grade is 3 if the document has the topic, the entity and the facet of the intent, 2 if it has the topic, the
        entity and another facet, 1 if it has the topic and another entity or if the topic of the intent is its second
        topic, and 0 otherwise. A document of poor quality gets one grade less, but not less than 0.
        """
        topic, entity, facet = self.split_intents(np.asarray(intents))
        subject = self.documents.subject
        same_topic = subject.topic[documents] == topic
        same_entity = same_topic if subject.entity is None else same_topic & (subject.entity[documents] == entity)
        related = same_topic | (subject.secondary[documents] == topic)
        grade = np.where(same_entity, 2 + (subject.facet[documents] == facet), related)
        poor = self.documents.quality[documents] < self.constants.poor_quality
        return np.maximum(grade - poor, 0).astype(np.int8)

    def query_grades(
        self, queries: Int[np.ndarray, "queries"], documents: Int[np.ndarray, "documents"] | None = None
    ) -> Int8[np.ndarray, "queries documents"]:
        """Returns the grade of each document (default: all documents) for each query, the maximum over its intents."""
        documents = np.arange(len(self.documents)) if documents is None else documents
        best = np.zeros((len(queries), len(documents)), np.int8)
        for intents in self.queries.intents[queries].T:
            grade = self.intent_grades(intents[:, None], documents[None, :])
            best = np.maximum(best, np.where(intents[:, None] >= 0, grade, 0))
        return best

    def pair_grades(self, queries: Int[np.ndarray, "n"], documents: Int[np.ndarray, "n"]) -> Int8[np.ndarray, "n"]:
        """Returns the grade of each (query, document) pair, the maximum over the intents of the query."""
        intents = self.queries.intents[queries]
        grade = self.intent_grades(intents, documents[:, None])
        return np.where(intents >= 0, grade, 0).max(axis=1).astype(np.int8)

    def published_before(self, time_us: int) -> Bool[np.ndarray, "documents"]:
        """Returns whether each document was published before a time (microseconds since 1970)."""
        return self.documents.published_at_us < time_us

    @cached_property
    def initial_popularity(self) -> Float[np.ndarray, "documents"]:
        """The number of clicks on each document before the first day.

        The numbers have a heavy tail. They increase with quality and age, and are 0 for documents that are published
        later.
        """
        constants, rng = self.constants, self.streams.generator("initial popularity")
        noise = rng.lognormal(sigma=_INITIAL_POPULARITY_SPREAD, size=len(self.documents))
        age_days = (constants.start_us - self.documents.published_at_us) / 86_400e6
        seen = 1 - np.exp(-np.maximum(age_days, 0) / constants.mean_initial_age_days)
        return np.round(10 * noise * np.exp(0.5 * self.documents.quality) * seen)


def draw_world(constants: WorldConstants, *, seed: int) -> World:
    """Returns the world of a seed. The same constants and seed always result in the same world.

    Raises InputError if the vocabulary does not provide `constants.queries` distinct queries, and ValueError for a
    negative seed.
    """
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
