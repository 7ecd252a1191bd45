import dataclasses

import numpy as np
import pytest

from data.world.behaviour.clicks import examination
from data.world.behaviour.day import serve_day
from data.world.behaviour.feed import draw_feed
from data.world.behaviour.sessions import asks_of, draw_sessions, reformulate
from data.world.constants import WorldConstants
from data.world.engine import present_engine
from data.world.logs.log_tables import day_tables
from data.world.logs.statistics import click_through_by_position, reformulation_rate
from data.world.world import draw_world

SMALL = WorldConstants(documents=500, queries=150, users=300, days=2, topics=30)


@pytest.fixture(scope="module")
def world():
    return draw_world(SMALL, seed=0)


@pytest.fixture(scope="module")
def engine(world):
    return present_engine(world)


@pytest.fixture(scope="module")
def day(world, engine):
    return serve_day(world, engine, day=1)


def test_a_search_has_one_user_and_one_of_its_querys_intents(world, day):
    searches = day.searches
    assert (world.queries.intents[searches.query] == searches.intent[:, None]).any(axis=1).all()
    table = day_tables(world, day)["searches"]
    assert len(set(table["search_id"].to_pylist())) == table.num_rows == len(searches.user)
    assert (np.diff(searches.time_us) >= 0).all()


def test_stages_are_disjoint_and_published_before_the_day(world, day):
    pages = day.searches.pages
    everything = np.concatenate(pages, axis=1)
    for row in everything:
        documents = row[row >= 0]
        assert len(set(documents.tolist())) == len(documents)
    assert everything.max() < world.published_before(SMALL.start_us + 86_400_000_000).sum()
    assert pages.shown.shape[1] == SMALL.page_size
    assert pages.ranked.shape[1] == pages.filtered.shape[1] == SMALL.logged_not_shown_per_stage
    assert (pages.shown[:, 1:] >= 0).sum() == (pages.shown >= 0).sum() - len(pages.shown)


def test_clicks_only_where_something_is_shown(day):
    assert not (day.searches.clicked & (day.searches.pages.shown < 0)).any()
    assert ((day.searches.watch_seconds > 0) == day.searches.clicked).all()
    assert not (day.searches.liked & ~day.searches.clicked).any()


def test_position_bias_can_be_measured_in_the_log():
    """If every examined document is clicked, the click-through rate by position equals the examination probability."""
    constants = dataclasses.replace(SMALL, click_noise=1.0, users=1500)
    world = draw_world(constants, seed=1)
    searches = serve_day(world, present_engine(world), day=0).searches
    expected = examination(np.arange(1, 11), exponent=constants.position_exponent)
    np.testing.assert_allclose(click_through_by_position(searches), expected, atol=0.05)


def test_arms_meet_the_same_users_needs_and_arrivals(world, engine, day):
    class EmptyRetriever:
        def __call__(self, queries, stock, *, k):
            return np.full((len(queries), k), -1, np.int32)

    bare = dataclasses.replace(engine, retrievers={"bm25": engine.bm25, "empty": EmptyRetriever()})
    other = serve_day(world, bare, day=1)
    sessions = draw_sessions(world, asks_of(world), day=1)
    starts = set(zip(sessions.user, sessions.start_us, sessions.need.query, sessions.need.intent, strict=True))
    for arm in (day.searches, other.searches):
        assert starts <= set(zip(arm.user, arm.time_us, arm.query, arm.intent, strict=True))
    assert not np.array_equal(day.searches.pages.shown[:50], other.searches.pages.shown[:50])
    for expected, column in zip(day.feed, other.feed, strict=True):
        np.testing.assert_array_equal(column, expected)


def test_an_engine_that_retrieves_nothing_serves_empty_pages(world, engine):
    silent = dataclasses.replace(
        engine, retrievers={"none": lambda queries, stock, *, k: np.full((len(queries), k), -1)}
    )
    served = serve_day(world, silent, day=0)
    assert (served.searches.pages.shown == -1).all()
    assert day_tables(world, served)["candidates"].num_rows == 0


def test_feed_shows_nothing_before_its_publication_and_nothing_twice_in_a_visit(world, engine, day):
    feed = day.feed
    assert (world.documents.published_at_us[feed.document] < feed.time_us).all()
    assert (np.diff(feed.time_us) >= 0).all()
    fresh = world.documents.published_at_us[feed.document] >= SMALL.start_us + 86_400_000_000
    assert fresh.any()  # Unlike search, the feed shows documents that are published on the same day.


def test_feed_follows_the_present_need(world, engine):
    sessions = draw_sessions(world, asks_of(world), day=0)
    constants = dataclasses.replace(SMALL, feed_need_share=1.0, feed_interest_share=0.0, feed_popular_share=0.0)
    led = dataclasses.replace(world, constants=constants)
    explored = dataclasses.replace(world, constants=dataclasses.replace(constants, feed_need_share=0.0))
    needs = {(int(u), int(i) // SMALL.facets) for u, i in zip(sessions.user, sessions.need.intent, strict=True)}

    def share(served):
        feed = draw_feed(served, sessions, day=0, popularity=engine.popularity)
        topics = served.documents.subject.topic[feed.document]
        return np.mean([(int(u), int(t)) in needs for u, t in zip(feed.user, topics, strict=True)])

    assert share(led) > 0.6
    assert share(explored) < 0.3


def test_unsatisfied_users_reformulate_within_and_beyond_90_seconds(world, day):
    impatient = dataclasses.replace(SMALL, patience=0.0)
    resigned = serve_day(draw_world(impatient, seed=0), present_engine(draw_world(impatient, seed=0)), day=1)
    assert reformulation_rate(resigned.searches) < 0.02
    assert 0.05 < reformulation_rate(day.searches) < 0.5
    gaps = draw_sessions(world, asks_of(world), day=1).gap_seconds
    assert 0.7 < (gaps <= 90).mean() < 0.9
    assert gaps.min() >= 2


def test_reformulation_keeps_the_intent_and_brings_new_words(world):
    asks = asks_of(world)
    rng = np.random.default_rng(0)
    for query, intent in zip(asks.query[::20], asks.intent[::20], strict=True):
        tried = [int(query)]
        while (other := reformulate(world, asks, intent=int(intent), tried=tried, uniform=rng.random())) >= 0:
            assert intent in world.queries.intents[other]
            tried.append(other)
        assert len(set(tried)) == len(tried)
        assert set(tried) == set(asks.of_intent(int(intent)).tolist())


def test_the_engine_learns_what_was_clicked(engine, day):
    later = engine.after(day.clicked_documents())
    assert later.popularity.sum() == engine.popularity.sum() + day.searches.clicked.sum()
    assert later.bm25 is engine.bm25
