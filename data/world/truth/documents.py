"""The catalogue. Documents have hidden topics and qualities; their texts reveal the topics only partly."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from data.world.constants import WorldConstants
from data.world.streams import Streams
from data.world.truth.entities import entity_shares
from data.world.truth.lexicon import THING_WEIGHTS, Lexicon, draw_from_rows, zipf

DAY_US = 86_400_000_000
_HOUR_US = DAY_US // 24
_TITLE_THINGS = 2
_KEYWORD_THINGS = 3
_COVER_THINGS = 2
_TEXT_WORDS = 16
_SENTENCE_WORDS = 4
# The shares of the words of a text that name its topic, its field and its facet, and of filler words. Noise words
# replace any of them.
_TEXT_KINDS = np.array([0.6, 0.1, 0.12, 0.18])
_SECONDARY_WORD_SHARE = 0.35
_FACET_IN_TITLE_SHARE = 0.6
_ENTITY_IN_KEYWORDS_SHARE = 0.5
_FIELD_IN_TITLE_SHARE = 0.25


class Subject(NamedTuple):
    """The topics of documents; `secondary` is -1 if there is no second topic. Without `entity`, all entities are 0."""

    topic: Int[np.ndarray, "documents"]
    secondary: Int[np.ndarray, "documents"]
    facet: Int[np.ndarray, "documents"]
    entity: Int[np.ndarray, "documents"] | None = None


class Texts(NamedTuple):
    """The text fields of documents."""

    title: list[str]
    keywords: list[str]
    cover_text: list[str]
    text: list[str]


@dataclass(frozen=True)
class Documents:
    """Documents sorted by the time of publication. Their ids reveal none of their hidden properties."""

    doc_id: list[str]
    texts: Texts
    published_at_us: Int[np.ndarray, "documents"]
    subject: Subject
    quality: Float[np.ndarray, "documents"]
    """The hidden quality, a standard normal number."""

    def __len__(self) -> int:
        return len(self.doc_id)


def draw_documents(lexicon: Lexicon, constants: WorldConstants, streams: Streams) -> Documents:
    """Draws the catalogue: `initial_share` of it is published before the first day, the rest evenly over all days."""
    rng = streams.generator("documents")
    count = constants.documents
    published = _draw_publication(constants, rng)
    supply = topic_supply(constants, streams)
    topic = rng.choice(constants.topics, count, p=supply).astype(np.int32)
    subject = Subject(
        topic=topic,
        secondary=_draw_secondary(topic, lexicon, constants, rng),
        facet=rng.integers(0, constants.facets, count, dtype=np.int32),
        entity=_draw_entities(constants, streams),
    )
    return Documents(
        doc_id=[f"d{i:06d}" for i in range(count)],
        texts=draw_texts(subject, lexicon, constants, streams.generator("document texts")),
        published_at_us=published,
        subject=subject,
        quality=rng.standard_normal(count),
    )


def _draw_entities(constants: WorldConstants, streams: Streams) -> np.ndarray:
    """Draws the entity of each document."""
    rng, shares = streams.generator("document entities"), entity_shares(constants)
    return rng.choice(constants.entities_per_topic, constants.documents, p=shares).astype(np.int32)


def topic_supply(constants: WorldConstants, streams: Streams) -> Float[np.ndarray, "topics"]:
    """Returns the share of the documents that each topic has: Zipf shares in a random order of the topics."""
    order = streams.generator("topic supply").permutation(constants.topics)
    return zipf(constants.topics, constants.supply_exponent)[order]


def draw_texts(subject: Subject, lexicon: Lexicon, constants: WorldConstants, rng: np.random.Generator) -> Texts:
    """Draws the title, the keywords, the cover text and the text of documents with these subjects.

    A document has a preferred word for each thing and repeats it with the probability `synonym_loyalty`. The share
    `noise_word_share` of the words of the text is noise.
    """
    count = len(subject.topic)
    preferred = draw_from_rows(lexicon.thing_document_shares[subject.topic], rng.random((count, 3)))
    facet_word = lexicon.facets[
        subject.facet, draw_from_rows(lexicon.facet_document_shares[subject.facet], rng.random(count))
    ]

    def things(slots: int, *, first: bool) -> np.ndarray:
        """Returns words for things, [documents, slots]; if `first`, the first word names the first topic itself."""
        thing = draw_from_rows(np.tile(THING_WEIGHTS, (count, slots, 1)), rng.random((count, slots)))
        if first:
            thing[:, 0] = 0
        topic = np.repeat(subject.topic[:, None], slots, axis=1)
        second = (subject.secondary >= 0)[:, None] & (rng.random((count, slots)) < _SECONDARY_WORD_SHARE)
        topic = np.where(second & ~(first & (np.arange(slots) == 0)), subject.secondary[:, None], topic)
        redrawn = draw_from_rows(lexicon.thing_document_shares[topic, thing], rng.random((count, slots)))
        repeated = np.take_along_axis(preferred, thing, axis=1)
        loyal = (rng.random((count, slots)) < constants.synonym_loyalty) & (topic == subject.topic[:, None])
        return lexicon.things[topic, thing, np.where(loyal, repeated, redrawn)]

    def fields(slots: int) -> np.ndarray:
        """Returns words for the field of each document, [documents, slots]."""
        names = lexicon.fields.shape[1]
        return lexicon.fields[lexicon.topic_field[subject.topic][:, None], rng.integers(0, names, (count, slots))]

    title = np.concatenate([things(_TITLE_THINGS, first=True), fields(1)], axis=1)
    has_facet = rng.random(count) < _FACET_IN_TITLE_SHARE
    has_field = rng.random(count) < _FIELD_IN_TITLE_SHARE
    keywords = things(_KEYWORD_THINGS, first=True)
    cover = things(_COVER_THINGS, first=False)
    kind = draw_from_rows(np.tile(_TEXT_KINDS, (count, _TEXT_WORDS, 1)), rng.random((count, _TEXT_WORDS)))
    body = np.choose(
        kind,
        [
            things(_TEXT_WORDS, first=False),
            fields(_TEXT_WORDS),
            np.repeat(facet_word[:, None], _TEXT_WORDS, axis=1),
            rng.choice(lexicon.fillers, (count, _TEXT_WORDS)),
        ],
    )
    named = _name_entities(subject, lexicon, constants, rng, kind == 0)
    body = np.where(named.in_text >= 0, named.in_text, body)
    keywords = np.where(named.in_keywords[:, None] >= 0, np.c_[keywords[:, :-1], named.in_keywords], keywords)
    noise = rng.random(body.shape) < constants.noise_word_share
    body = np.where(noise, rng.choice(lexicon.things.ravel(), body.shape), body)
    words = _DrawnWords(
        title=title,
        keywords=keywords,
        cover=cover,
        body=body,
        filler=rng.choice(lexicon.fillers, count),
        connectors=rng.choice(lexicon.connectors, (count, 1 + _TEXT_WORDS)),
        facet=facet_word,
        has_facet=has_facet,
        has_field=has_field,
        entity=named.in_title,
    )
    return _spell(words, lexicon)


class _EntityWords(NamedTuple):
    """The words that name the entity of each document, by the place where they stand; -1 where another word stands."""

    in_title: Int[np.ndarray, "documents"]
    in_keywords: Int[np.ndarray, "documents"]
    in_text: Int[np.ndarray, "documents words"]


def _name_entities(
    subject: Subject,
    lexicon: Lexicon,
    constants: WorldConstants,
    rng: np.random.Generator,
    topical: Bool[np.ndarray, "documents words"],
) -> _EntityWords:
    """Draws where each document names its entity, and by which name; nothing is drawn where entities have no names.

    Args:
      subject: the subjects of the documents.
      lexicon: the words.
      constants: the constants of the world.
      rng: the generator.
      topical: the words of the texts that would name the topic, some of which name the entity instead.
    """
    count, slots = topical.shape
    if subject.entity is None or not lexicon.entities.shape[1]:
        return _EntityWords(np.full(count, -1), np.full(count, -1), np.full((count, slots), -1))
    shares = lexicon.entity_document_shares[subject.topic, subject.entity]
    preferred = draw_from_rows(shares, rng.random(count))
    redrawn = draw_from_rows(np.repeat(shares[:, None], slots, axis=1), rng.random((count, slots)))
    loyal = rng.random((count, slots)) < constants.synonym_loyalty
    names = lexicon.entities[subject.topic, subject.entity]
    in_text = np.take_along_axis(names, np.where(loyal, preferred[:, None], redrawn), axis=1)
    named = topical & (rng.random((count, slots)) < constants.entity_word_share)
    name = names[np.arange(count), preferred]
    in_title = rng.random(count) < constants.entity_in_title_share
    in_keywords = rng.random(count) < _ENTITY_IN_KEYWORDS_SHARE
    return _EntityWords(np.where(in_title, name, -1), np.where(in_keywords, name, -1), np.where(named, in_text, -1))


class _DrawnWords(NamedTuple):
    """The words of documents as numbers in the lexicon, and whether the title names the facet and the field."""

    title: Int[np.ndarray, "documents words"]
    keywords: Int[np.ndarray, "documents words"]
    cover: Int[np.ndarray, "documents words"]
    body: Int[np.ndarray, "documents words"]
    filler: Int[np.ndarray, "documents"]
    connectors: Int[np.ndarray, "documents words"]
    facet: Int[np.ndarray, "documents"]
    has_facet: Bool[np.ndarray, "documents"]
    has_field: Bool[np.ndarray, "documents"]
    entity: Int[np.ndarray, "documents"]


def _spell(drawn: _DrawnWords, lexicon: Lexicon) -> Texts:
    """Returns the drawn words as texts."""
    word = lexicon.words.__getitem__
    return Texts(
        title=[
            _title(
                [word(w) for w in drawn.title[i]],
                filler=word(drawn.filler[i]),
                facet=word(drawn.facet[i]) if drawn.has_facet[i] else None,
                connector=word(drawn.connectors[i, 0]),
                with_field=drawn.has_field[i],
                entity=word(drawn.entity[i]) if drawn.entity[i] >= 0 else None,
            )
            for i in range(len(drawn.title))
        ],
        keywords=[", ".join(dict.fromkeys(word(w) for w in row)) for row in drawn.keywords],
        cover_text=[" ".join(dict.fromkeys(word(w) for w in row)) for row in drawn.cover],
        text=[
            _sentences([word(w) for w in row], [word(c) for c in joins[1:]])
            for row, joins in zip(drawn.body, drawn.connectors, strict=True)
        ],
    )


def _title(
    words: list[str], *, filler: str, facet: str | None, connector: str, with_field: bool, entity: str | None
) -> str:
    """Returns a title such as "Classic sofa repair with cushion - home"."""
    first, other, field = words
    parts = [filler] + ([entity] if entity else []) + [first] + ([facet] if facet else [])
    parts += [connector, other] if other != first else []
    return " ".join(parts + ([f"- {field}"] if with_field else [])).capitalize()


def _sentences(words: list[str], connectors: list[str]) -> str:
    """Returns sentences of up to four distinct words, with a connector before the last word."""
    sentences = []
    for start in range(0, len(words), _SENTENCE_WORDS):
        part = list(dict.fromkeys(words[start : start + _SENTENCE_WORDS]))
        joined = [*part[:-1], connectors[start], part[-1]] if len(part) > 1 else part
        sentences.append(" ".join(joined).capitalize() + ".")
    return " ".join(sentences)


def _draw_publication(constants: WorldConstants, rng: np.random.Generator) -> np.ndarray:
    """Returns the sorted times of publication in microseconds since 1970, as whole seconds."""
    count = constants.documents
    initial = max(1, round(constants.initial_share * count))
    age = rng.exponential(constants.mean_initial_age_days * DAY_US, initial).astype(np.int64)
    before = constants.start_us - _HOUR_US - age
    later = constants.start_us + rng.integers(0, constants.days * DAY_US, count - initial)
    return np.sort(np.concatenate([before, later]) // 1_000_000 * 1_000_000)


def _draw_secondary(
    topic: np.ndarray, lexicon: Lexicon, constants: WorldConstants, rng: np.random.Generator
) -> np.ndarray:
    """Returns a second topic of the same field for some documents, and -1 for the others."""
    # Topics are numbered field by field, so the topics of a field have consecutive numbers.
    first = np.searchsorted(lexicon.topic_field, lexicon.topic_field[topic], side="left")
    count = np.searchsorted(lexicon.topic_field, lexicon.topic_field[topic], side="right") - first
    has_second = (rng.random(len(topic)) < constants.secondary_topic_share) & (count > 1)
    step = 1 + np.floor(rng.random(len(topic)) * np.maximum(count - 1, 1)).astype(np.int64)
    return np.where(has_second, first + (topic - first + step) % count, -1).astype(np.int32)
