"""The words that name things, and the frequency with which documents and users use each of them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from data.world.constants import WorldConstants
from data.world.streams import Streams
from data.world.vocabulary import CONNECTORS, FACETS, FIELDS, FILLERS

# How often a thing's first, second and third choice of word is taken; four for facets.
_THING_SHARES = np.array([0.6, 0.3, 0.1])
_FACET_SHARES = np.array([0.5, 0.25, 0.15, 0.1])
# A topic's own name against the two things that belong to it.
THING_WEIGHTS = np.array([0.5, 0.25, 0.25])


@dataclass(frozen=True)
class Lexicon:
    """Words of one world.

    Documents prefer one name for a thing, searchers prefer the same one or, for `vocabulary_gap` of the things, the
    one that documents use least: lexical matching is informative and insufficient.
    """

    words: tuple[str, ...]
    topic_field: Int[np.ndarray, "topics"]
    things: Int[np.ndarray, "topics 3 3"]
    """Word of each name of each thing of each topic."""
    thing_document_shares: Float[np.ndarray, "topics 3 3"]
    thing_query_shares: Float[np.ndarray, "topics 3 3"]
    fields: Int[np.ndarray, "fields 3"]
    facets: Int[np.ndarray, "facets 4"]
    facet_document_shares: Float[np.ndarray, "facets 4"]
    facet_query_shares: Float[np.ndarray, "facets 4"]
    fillers: Int[np.ndarray, "fillers"]
    connectors: Int[np.ndarray, "connectors"]

    @cached_property
    def topics_of_word(self) -> dict[int, frozenset[int]]:
        """Topics that have a thing of this name; a field's word belongs to all topics of the field."""
        found: dict[int, set[int]] = {}
        for topic in range(len(self.things)):
            for word in (*self.things[topic].ravel(), *self.fields[self.topic_field[topic]]):
                found.setdefault(int(word), set()).add(topic)
        return {word: frozenset(topics) for word, topics in found.items()}

    @cached_property
    def document_share_of_word(self) -> Float[np.ndarray, "words"]:
        """Returns how much documents prefer a word to its synonyms; 1/3 for words that are not names of things."""
        share = np.full(len(self.words), 1 / 3)
        share[self.things.ravel()[::-1]] = self.thing_document_shares.ravel()[::-1]
        return share


def draw_lexicon(constants: WorldConstants, streams: Streams) -> Lexicon:
    """Picks `constants.topics` topics and each side's liking for the words."""
    rng = streams.generator("lexicon")
    every = [(number, topic) for number, field in enumerate(FIELDS) for topic in field.topics]
    chosen = [every[i] for i in np.sort(rng.permutation(len(every))[: constants.topics])]
    names = [word for _, topic in chosen for thing in topic for word in thing]
    names += [word for field in FIELDS for word in field.names] + [word for facet in FACETS for word in facet.names]
    words = tuple(dict.fromkeys([*names, *FILLERS, *CONNECTORS]))
    number = {word: i for i, word in enumerate(words)}

    def numbers(nested):
        return np.array([numbers(part) for part in nested] if not isinstance(nested, str) else number[nested], np.int32)

    def shares(count: int, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        documents = rng.permuted(np.tile(base, (count, 1)), axis=1)
        # base falls, so "1 minus rank" turns the most liked word into the least liked one.
        turned = np.sort(base)[np.argsort(np.argsort(-documents, axis=1), axis=1)]
        return documents, np.where(rng.random((count, 1)) < constants.vocabulary_gap, turned, documents)

    thing_documents, thing_queries = shares(len(chosen) * 3, _THING_SHARES)
    facet_documents, facet_queries = shares(len(FACETS), _FACET_SHARES)
    return Lexicon(
        words=words,
        topic_field=np.array([field for field, _ in chosen], np.int32),
        things=numbers([topic for _, topic in chosen]),
        thing_document_shares=thing_documents.reshape(-1, 3, 3),
        thing_query_shares=thing_queries.reshape(-1, 3, 3),
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
    """One choice a row by inverting the row's cumulative shares; uniforms lie in [0, 1)."""
    cumulative = np.cumsum(shares, axis=-1)
    chosen = (uniforms[..., None] * cumulative[..., -1:] >= cumulative).sum(axis=-1)
    return np.minimum(chosen, shares.shape[-1] - 1)


def zipf(count: int, exponent: float) -> Float[np.ndarray, "count"]:
    """Shares proportional to rank ** -exponent, rank from 1."""
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()
