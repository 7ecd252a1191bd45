import dataclasses
import re

import numpy as np
import pytest

from crops_jax.text import words
from data.world.constants import WorldConstants
from data.world.streams import Streams
from data.world.truth.documents import Documents, Subject, Texts
from data.world.truth.entities import draw_names, entity_shares
from data.world.truth.lexicon import draw_lexicon
from data.world.world import World, draw_world

SMALL = WorldConstants(documents=2000, queries=300, users=30, days=2, topics=10, entities_per_topic=5)


@pytest.fixture(scope="module")
def world():
    return draw_world(SMALL, seed=0)


def test_an_entity_has_three_names_of_its_own_and_some_are_shared():
    names = draw_names(dataclasses.replace(SMALL, topics=100), Streams(0), taken=("tomato",))
    assert names.shape == (100, 5, 3)
    assert all(len(set(entity)) == 3 for topic in names for entity in topic)
    assert len(set(names.ravel())) < names.size
    assert all(re.fullmatch("([b-z][aeiou]){3}", name) for name in names.ravel())
    assert "tomato" not in names


def test_one_entity_has_no_name_and_changes_no_word():
    one = dataclasses.replace(SMALL, entities_per_topic=1)
    assert draw_names(one, Streams(0), taken=()).shape == (10, 0, 3)
    lexicon, other = draw_lexicon(one, Streams(0)), draw_lexicon(SMALL, Streams(0))
    assert other.words[: len(lexicon.words)] == lexicon.words
    np.testing.assert_array_equal(lexicon.thing_query_shares, other.thing_query_shares)


def test_shares_are_zipf_by_hand():
    constants = WorldConstants(entities_per_topic=3, entity_exponent=1.0)
    np.testing.assert_allclose(entity_shares(constants), np.array([6, 3, 2]) / 11)
    assert entity_shares(WorldConstants()).tolist() == [1.0]


def test_intents_are_topic_entity_and_facet(world):
    intents = np.arange(10 * 5 * SMALL.facets)
    topic, entity, facet = world.split_intents(intents)
    np.testing.assert_array_equal((topic * 5 + entity) * SMALL.facets + facet, intents)
    assert (topic.max(), entity.max(), facet.max()) == (9, 4, SMALL.facets - 1)


def test_grades_with_entities_by_hand(world):
    # Topic 4, entity 3, facet 2. Exact; other facet; other entity; second topic; elsewhere; exact but poor.
    topic, second = np.array([4, 4, 4, 5, 5, 4]), np.array([-1, -1, -1, 4, -1, -1])
    subject = Subject(topic, second, np.array([2, 0, 2, 2, 2, 2]), np.array([3, 3, 1, 3, 3, 3]))
    quality = np.array([0, 0, 0, 0, 0, -2.0])
    documents = Documents(list("abcdef"), Texts([], [], [], []), np.zeros(6), subject, quality)
    hand = World(SMALL, world.streams, world.lexicon, documents, world.queries, world.users)
    intents = np.full(6, (4 * 5 + 3) * SMALL.facets + 2)
    assert hand.intent_grades(intents, np.arange(6)).tolist() == [3, 2, 1, 1, 0, 2]


def test_documents_name_their_entity_and_rarely_another(world):
    names = world.lexicon.entities
    own = others = 0
    for document in range(0, 2000, 5):
        text = " ".join(column[document] for column in world.documents.texts)
        found = set(words(text))
        group = (world.documents.subject.topic[document], world.documents.subject.entity[document])
        own += bool(found & {world.lexicon.words[w] for w in names[group]})
        other = (group[0], (group[1] + 1) % 5)
        others += bool(found & {world.lexicon.words[w] for w in names[other]})
    assert own / 400 > 0.9
    assert others / 400 < 0.1


def test_users_prefer_the_name_that_documents_use_least_by_the_gap():
    constants = dataclasses.replace(SMALL, topics=100, entities_per_topic=20, vocabulary_gap=0.7)
    lexicon = draw_lexicon(constants, Streams(0))
    turned = lexicon.entity_document_shares.argmax(-1) == lexicon.entity_query_shares.argmin(-1)
    assert turned.mean() == pytest.approx(0.7, abs=0.05)


def test_a_query_with_a_name_means_an_entity_of_this_name(world):
    entities_of = {world.lexicon.words[word]: entities for word, entities in world.lexicon.entities_of_word.items()}
    named = 0
    for query, text in enumerate(world.queries.text):
        intents = world.queries.intents[query]
        topic, entity, _ = world.split_intents(intents[intents >= 0])
        for word in text.split():
            if word in entities_of:
                named += 1
                assert set(zip(topic.tolist(), entity.tolist(), strict=True)) <= entities_of[word]
    assert 0.4 < named / 300 < 0.8
