"""The words that name things, and the frequencies with which documents and users use each word."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from data.world.constants import WorldConstants
from data.world.streams import Streams
from data.world.truth.entities import draw_names
from data.world.vocabulary import CONNECTORS, FACETS, FIELDS, FILLERS

# The shares with which the three names of a thing, the four names of a facet and the three names of an entity are
# used, in descending order.
_THING_SHARES = np.array([0.6, 0.3, 0.1])
_FACET_SHARES = np.array([0.5, 0.25, 0.15, 0.1])
_ENTITY_SHARES = np.array([0.75, 0.22, 0.03])
# The weights of the topic itself and of the two things that belong to it.
THING_WEIGHTS = np.array([0.5, 0.25, 0.25])


@dataclass(frozen=True)
class Lexicon:
    """The words of one world.

    Documents prefer one name for each thing. Users prefer the same name or, for the share `vocabulary_gap` of the
    things, the name that documents use least often. Lexical matching is therefore informative but not sufficient.
    """

    words: tuple[str, ...]
    topic_field: Int[np.ndarray, "topics"]
    things: Int[np.ndarray, "topics 3 3"]
    """The word number of each name of each thing of each topic."""
    thing_document_shares: Float[np.ndarray, "topics 3 3"]
    thing_query_shares: Float[np.ndarray, "topics 3 3"]
    entities: Int[np.ndarray, "topics entities 3"]
    """The word number of each name of each entity of each topic; there are 0 entities where they have no names."""
    entity_document_shares: Float[np.ndarray, "topics entities 3"]
    entity_query_shares: Float[np.ndarray, "topics entities 3"]
    fields: Int[np.ndarray, "fields 3"]
    facets: Int[np.ndarray, "facets 4"]
    facet_document_shares: Float[np.ndarray, "facets 4"]
    facet_query_shares: Float[np.ndarray, "facets 4"]
    fillers: Int[np.ndarray, "fillers"]
    connectors: Int[np.ndarray, "connectors"]

    @cached_property
    def topics_of_word(self) -> dict[int, frozenset[int]]:
        """The topics of each word: those with a thing or an entity, or those of a field, of this name."""
        topics_of: dict[int, set[int]] = {}
        for topic in range(len(self.things)):
            words = (self.things[topic].ravel(), self.entities[topic].ravel(), self.fields[self.topic_field[topic]])
            for word in np.concatenate(words):
                topics_of.setdefault(int(word), set()).add(topic)
        return {word: frozenset(topics) for word, topics in topics_of.items()}

    @cached_property
    def entities_of_word(self) -> dict[int, frozenset[tuple[int, int]]]:
        """The entities (topic, entity) of each word that names one."""
        entities_of: dict[int, set[tuple[int, int]]] = {}
        for (topic, entity, _), word in np.ndenumerate(self.entities):
            entities_of.setdefault(int(word), set()).add((topic, entity))
        return {word: frozenset(entities) for word, entities in entities_of.items()}

    @cached_property
    def document_share_of_word(self) -> Float[np.ndarray, "words"]:
        """The share with which documents use each word among its synonyms; 1/3 for words that name neither
        a thing nor an entity.
        """
        share = np.full(len(self.words), 1 / 3)
        share[self.things.ravel()[::-1]] = self.thing_document_shares.ravel()[::-1]
        share[self.entities.ravel()[::-1]] = self.entity_document_shares.ravel()[::-1]
        return share


def draw_lexicon(constants: WorldConstants, streams: Streams) -> Lexicon:
    """Draws `constants.topics` topics, and the preferences of documents and of users for the names of things."""
    rng = streams.generator("lexicon")
    all_topics = [(number, topic) for number, field in enumerate(FIELDS) for topic in field.topics]
    chosen = [all_topics[i] for i in np.sort(rng.permutation(len(all_topics))[: constants.topics])]
    names = [word for _, topic in chosen for thing in topic for word in thing]
    names += [word for field in FIELDS for word in field.names] + [word for facet in FACETS for word in facet.names]
    words = tuple(dict.fromkeys([*names, *FILLERS, *CONNECTORS]))
    entities = draw_names(constants, streams, taken=words)
    words = (*words, *dict.fromkeys(entities.ravel().tolist()))
    number = {word: i for i, word in enumerate(words)}

    def numbers(nested):
        """Returns the word numbers of nested sequences of words, as an array of the same shape."""
        return np.array([numbers(part) for part in nested] if not isinstance(nested, str) else number[nested], np.int32)

    def shares(count: int, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the shares of the names of `count` things or facets among documents, and among queries."""
        documents = rng.permuted(np.tile(base, (count, 1)), axis=1)
        # The ranks are those of the negated shares, so the name with the maximum share gets the minimum share.
        turned = np.sort(base)[np.argsort(np.argsort(-documents, axis=1), axis=1)]
        return documents, np.where(rng.random((count, 1)) < constants.vocabulary_gap, turned, documents)

    thing_documents, thing_queries = shares(len(chosen) * 3, _THING_SHARES)
    facet_documents, facet_queries = shares(len(FACETS), _FACET_SHARES)
    # With one entity a topic there are no names, and nothing more is drawn.
    entity_documents, entity_queries = shares(entities.shape[0] * entities.shape[1], _ENTITY_SHARES)
    return Lexicon(
        words=words,
        topic_field=np.array([field for field, _ in chosen], np.int32),
        things=numbers([topic for _, topic in chosen]),
        thing_document_shares=thing_documents.reshape(-1, 3, 3),
        thing_query_shares=thing_queries.reshape(-1, 3, 3),
        entities=np.vectorize(number.__getitem__, otypes=[np.int32])(entities),
        entity_document_shares=entity_documents.reshape(entities.shape),
        entity_query_shares=entity_queries.reshape(entities.shape),
        fields=numbers([field.names for field in FIELDS]),
        facets=numbers([facet.names for facet in FACETS]),
        facet_document_shares=facet_documents,
        facet_query_shares=facet_queries,
        fillers=numbers(FILLERS),
        connectors=numbers(CONNECTORS),
    )


def draw_from_rows(
    shares: Float[np.ndarray, "*rows choices"], uniforms: Float[np.ndarray, "*rows"]
) -> Int[np.ndarray, "*rows"]:
    """Returns one choice for each row by inversion of its cumulative shares; the uniforms are in [0, 1)."""
    cumulative = np.cumsum(shares, axis=-1)
    chosen = (uniforms[..., None] * cumulative[..., -1:] >= cumulative).sum(axis=-1)
    return np.minimum(chosen, shares.shape[-1] - 1)


def zipf(count: int, exponent: float) -> Float[np.ndarray, "count"]:
    """Returns shares that are proportional to rank ** -exponent and sum to 1; the first rank is 1."""
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()
