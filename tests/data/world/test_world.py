import dataclasses

import numpy as np
import pytest

from crops_jax.errors import InputError
from crops_jax.text import normalise_query
from data.world.constants import WorldConstants
from data.world.streams import Streams
from data.world.truth.documents import Documents, Subject, Texts
from data.world.truth.lexicon import draw_from_rows, draw_lexicon, zipf
from data.world.world import World, draw_world

SMALL = WorldConstants(documents=400, queries=120, users=60, days=2, topics=30)


@pytest.fixture(scope="module")
def world():
    return draw_world(SMALL, seed=0)


def test_components_do_not_disturb_each_other(world):
    other = draw_world(dataclasses.replace(SMALL, users=61, queries=121), seed=0)
    assert other.documents.texts == world.documents.texts
    assert other.queries.text[:120] == world.queries.text
    assert draw_world(SMALL, seed=1).documents.texts != world.documents.texts


def test_documents_are_sorted_and_arrive_every_day(world):
    published = world.documents.published_at_us
    assert (np.diff(published) >= 0).all()
    day = (published - SMALL.start_us) // 86_400_000_000
    assert (published < SMALL.start_us).sum() == 320
    assert {0, 1} <= set(day.tolist())
    assert day.max() == 1


def test_supply_is_zipf_distributed():
    many = draw_world(WorldConstants(documents=20_000, queries=1, users=1, topics=10), seed=0)
    shares = np.sort(np.bincount(many.documents.subject.topic))[::-1] / 20_000
    np.testing.assert_allclose(shares, zipf(10, 0.6), atol=0.015)


def test_grades_by_hand(world):
    # The intent is topic 4 with facet 2. The documents match it exactly, with another facet, by their second topic, and
    # not at all; the last two match it exactly and by their second topic, and are of poor quality.
    subject = Subject(np.array([4, 4, 5, 5, 4, 5]), np.array([-1, -1, 4, -1, -1, 4]), np.array([2, 0, 2, 2, 2, 2]))
    documents = Documents(list("abcdef"), Texts([], [], [], []), np.zeros(6), subject, np.array([0, 0, 0, 0, -2, -2.0]))
    hand = World(SMALL, world.streams, world.lexicon, documents, world.queries, world.users)
    intents = np.full(6, 4 * SMALL.facets + 2)
    assert hand.intent_grades(intents, np.arange(6)).tolist() == [3, 2, 1, 0, 2, 0]


def test_a_querys_grade_is_the_best_over_its_intents(world):
    queries = np.arange(len(world.queries))
    grades = world.query_grades(queries)
    for query in range(0, 120, 7):
        intents = [i for i in world.queries.intents[query] if i >= 0]
        each = [world.intent_grades(np.full(400, i), np.arange(400)) for i in intents]
        np.testing.assert_array_equal(grades[query], np.max(each, axis=0))
    pairs = np.array([[3, 5], [100, 399]])
    np.testing.assert_array_equal(world.pair_grades(*pairs), grades[pairs[0], pairs[1]])


def test_queries_are_distinct_and_have_weighted_intents(world):
    queries = world.queries
    assert len(set(queries.text)) == len(queries) == 120
    assert all(text == normalise_query(text) for text in queries.text)
    np.testing.assert_allclose(queries.intent_shares.sum(axis=1), 1)
    assert ((queries.intent_shares > 0) == (queries.intents >= 0)).all()
    several = (queries.intents >= 0).sum(axis=1)
    assert (several > 1).mean() > 0.3
    assert several.min() == 1
    assert queries.popularity.sum() == pytest.approx(1)


def test_more_queries_than_the_vocabulary_provides_are_refused():
    with pytest.raises(InputError, match="--queries 9000"):
        draw_world(WorldConstants(documents=1, queries=9000, users=1, topics=1), seed=0)


def test_searchers_often_use_other_words_than_documents():
    constants = WorldConstants()
    lexicon = draw_lexicon(constants, Streams(0))
    turned = lexicon.thing_document_shares.argmax(-1) == lexicon.thing_query_shares.argmin(-1)
    assert turned.mean() == pytest.approx(constants.vocabulary_gap, abs=0.1)
    np.testing.assert_allclose(np.sort(lexicon.thing_query_shares), np.sort(lexicon.thing_document_shares))


def test_draw_from_rows_follows_the_shares():
    shares = np.array([[0.2, 0.0, 0.8]])
    assert draw_from_rows(np.repeat(shares, 4, 0), np.array([0.0, 0.19, 0.2, 0.999])).tolist() == [0, 0, 2, 2]


def test_users_have_distinct_interests(world):
    interests = world.users.interests
    assert interests.shape == (60, 4)
    assert all(len(set(row)) == 4 for row in interests.tolist())
