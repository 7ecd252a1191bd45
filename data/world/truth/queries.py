"""The queries of users: their texts, and the intents that each query can have."""

import heapq
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from crops_jax.errors import InputError
from data.world.constants import WorldConstants
from data.world.streams import Streams
from data.world.truth.documents import topic_supply
from data.world.truth.entities import entity_shares
from data.world.truth.lexicon import THING_WEIGHTS, Lexicon, draw_from_rows, zipf
from data.world.vocabulary import FACETS

MAX_INTENTS = 4
# The forms of a query, which are the kinds of words that it consists of, and the shares of the forms.
_FORMS = ("topic", "topic facet", "topic thing", "topic thing facet", "thing facet", "field topic", "field facet")
_FORM_SHARES = np.array([0.15, 0.25, 0.2, 0.15, 0.1, 0.1, 0.05])
# The same of a query that names the entity.
_ENTITY_FORMS = ("entity", "entity facet", "topic entity", "entity thing", "topic entity facet", "field entity")
_ENTITY_FORM_SHARES = np.array([0.25, 0.25, 0.2, 0.1, 0.15, 0.05])
# The number of needs in a round is constant, so that the first queries of a world are the same for every --queries.
_NEEDS_PER_ROUND = 100
_MAX_ROUNDS_WITHOUT_NEW_QUERY = 20


@dataclass(frozen=True)
class Queries:
    """Queries with distinct, normalised texts. The number of an intent is
    (topic * entities + entity) * facets + facet.
    """

    text: list[str]
    intents: Int[np.ndarray, "queries intents"]
    """The intents that each query can have; -1 is padding."""
    intent_shares: Float[np.ndarray, "queries intents"]
    """The share of the users who type this text that have each intent; rows sum to 1."""
    popularity: Float[np.ndarray, "queries"]
    """The share of each query in the demand; the shares sum to 1."""
    document_likeness: Float[np.ndarray, "queries"]
    """The mean share with which documents use the words of the query among their synonyms."""

    @cached_property
    def words(self) -> list[list[str]]:
        """The words of each query."""
        return [text.split() for text in self.text]

    def __len__(self) -> int:
        return len(self.text)


def draw_queries(lexicon: Lexicon, constants: WorldConstants, streams: Streams) -> Queries:
    """Draws needs by demand, and several texts for each need, until `constants.queries` distinct texts exist.

    Raises InputError if the vocabulary does not provide this number of distinct texts.
    """
    rng = streams.generator("queries")
    demand = topic_demand(constants, streams)
    facet_demand = streams.generator("facet demand").dirichlet(np.ones(constants.facets), constants.topics)
    needs: dict[str, tuple[int, tuple[int, ...], int]] = {}
    idle = 0
    while len(needs) < constants.queries:
        before = len(needs)
        for text, need in _draw_phrasings(demand, facet_demand, lexicon, constants, rng):
            if len(needs) < constants.queries:
                needs.setdefault(text, need)
        idle = idle + 1 if len(needs) == before else 0
        if idle == _MAX_ROUNDS_WITHOUT_NEW_QUERY:
            raise InputError(
                f"--queries {constants.queries}: the vocabulary of {constants.topics} topics yields only "
                f"{before} distinct queries; reduce --queries"
            )
    texts = list(needs)
    intents = np.full((len(texts), MAX_INTENTS), -1, np.int32)
    shares = np.zeros((len(texts), MAX_INTENTS))
    for row, (intent, words, facet) in enumerate(needs.values()):
        fitting = _find_intents(intent, words, facet, demand, facet_demand, lexicon, constants)
        intents[row, : len(fitting)] = [number for number, _ in fitting]
        shares[row, : len(fitting)] = [share for _, share in fitting]
    lengths = np.array([len(words) + (facet >= 0) for _, words, facet in needs.values()])
    popularity = rng.permutation(zipf(len(texts), constants.query_exponent)) / lengths
    document_shares = lexicon.document_share_of_word
    return Queries(
        text=texts,
        intents=intents,
        intent_shares=shares / shares.sum(axis=1, keepdims=True),
        popularity=popularity / popularity.sum(),
        document_likeness=np.array([document_shares[list(words)].mean() for _, words, _ in needs.values()]),
    )


def topic_demand(constants: WorldConstants, streams: Streams) -> Float[np.ndarray, "topics"]:
    """Returns the share of each topic in the demand.

    It is proportional to the geometric mean of the supply and of the same shares in a different random order.
    """
    reordered = topic_supply(constants, streams)[streams.generator("topic demand").permutation(constants.topics)]
    demand = np.sqrt(topic_supply(constants, streams) * reordered)
    return demand / demand.sum()


def _draw_phrasings(
    demand: np.ndarray,
    facet_demand: np.ndarray,
    lexicon: Lexicon,
    constants: WorldConstants,
    rng: np.random.Generator,
) -> list[tuple[str, tuple[int, tuple[int, ...], int]]]:
    """Draws the texts of some needs.

    Returns:
      Pairs (text, (intent, numbers of the words that name things or fields, facet or -1 if the text names none)).
    """
    needs = _NEEDS_PER_ROUND
    topic = np.repeat(rng.choice(len(demand), needs, p=demand), constants.phrasings_per_need)
    facet = draw_from_rows(facet_demand[topic][:: constants.phrasings_per_need], rng.random(needs))
    facet = np.repeat(facet, constants.phrasings_per_need)
    count = len(topic)
    names = draw_from_rows(lexicon.thing_query_shares[topic], rng.random((count, 3)))
    first = np.arange(count) // constants.phrasings_per_need * constants.phrasings_per_need
    # Users more often add, drop or change one word than all words, so a text mostly uses the words of the first text.
    names = np.where(rng.random((count, 3)) < constants.phrasing_loyalty, names[first], names)
    other = 1 + draw_from_rows(np.tile(THING_WEIGHTS[1:], (count, 1)), rng.random(count))
    field_name = rng.integers(0, lexicon.fields.shape[1], count)
    facet_name = draw_from_rows(lexicon.facet_query_shares[facet], rng.random(count))
    form = draw_from_rows(np.tile(_FORM_SHARES, (count, 1)), rng.random(count))
    forms = [_FORMS[i] for i in form]
    entity, entity_word = np.zeros(count, np.int64), np.full(count, -1)
    if lexicon.entities.shape[1]:
        entity, entity_word, forms = _name_entities(topic, forms, lexicon, constants, rng)
    phrasings = []
    for i in range(count):
        kinds = forms[i].split()
        word = {
            "topic": lexicon.things[topic[i], 0, names[i, 0]],
            "thing": lexicon.things[topic[i], other[i], names[i, other[i]]],
            "field": lexicon.fields[lexicon.topic_field[topic[i]], field_name[i]],
            "entity": entity_word[i],
        }
        words = tuple(int(word[kind]) for kind in kinds if kind != "facet")
        parts = [lexicon.words[w] for w in words]
        if "facet" in kinds:
            name = FACETS[facet[i]].names[facet_name[i]]
            parts = [name, *parts] if FACETS[facet[i]].before else [*parts, name]
        intent = int((topic[i] * constants.entities_per_topic + entity[i]) * constants.facets + facet[i])
        need = (intent, words, int(facet[i]) if "facet" in kinds else -1)
        phrasings.append((" ".join(parts), need))
    return phrasings


def _name_entities(
    topic: np.ndarray, forms: list[str], lexicon: Lexicon, constants: WorldConstants, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Draws the entity of each need, the word that names it in each text, and which of the texts name it.

    Returns:
      The entity, the number of the word, and the form of each text.
    """
    count, each = len(topic), constants.phrasings_per_need
    entity = rng.choice(constants.entities_per_topic, count // each, p=entity_shares(constants)).repeat(each)
    name = draw_from_rows(lexicon.entity_query_shares[topic, entity], rng.random(count))
    first = np.arange(count) // each * each
    name = np.where(rng.random(count) < constants.phrasing_loyalty, name[first], name)
    named = rng.random(count) < constants.entity_query_share
    form = draw_from_rows(np.tile(_ENTITY_FORM_SHARES, (count, 1)), rng.random(count))
    chosen = [_ENTITY_FORMS[form[i]] if named[i] else forms[i] for i in range(count)]
    return entity, lexicon.entities[topic, entity, name], chosen


def _find_intents(
    intent: int,
    words: tuple[int, ...],
    facet: int,
    demand: np.ndarray,
    facet_demand: np.ndarray,
    lexicon: Lexicon,
    constants: WorldConstants,
) -> list[tuple[int, float]]:
    """Returns the intents that fit all words of a query, with their demand, at most MAX_INTENTS of them.

    The first one is the intent that the query was drawn for; the others follow in descending order of demand.
    """
    topics = sorted(frozenset.intersection(*(lexicon.topics_of_word[word] for word in words)))
    facets = range(constants.facets) if facet < 0 else (facet,)
    entities = [(t, e) for t in topics for e in range(constants.entities_per_topic)]
    for word in words:
        if word in lexicon.entities_of_word:
            entities = [pair for pair in entities if pair in lexicon.entities_of_word[word]]
    shares = entity_shares(constants)
    fitting = [
        (
            (t * constants.entities_per_topic + e) * constants.facets + f,
            float(demand[t] * shares[e] * facet_demand[t, f]),
        )
        for t, e in entities
        for f in facets
    ]
    return heapq.nsmallest(MAX_INTENTS, fitting, key=lambda pair: (pair[0] != intent, -pair[1], pair[0]))
