import numpy as np
import pytest

from data.world.channels import (
    AnyInCategory,
    Categories,
    ClickedWords,
    Clicks,
    PopularInCategory,
    SimilarItems,
    behavioural_channels,
    draw_initial_clicks,
)
from data.world.constants import WorldConstants
from data.world.engine import present_engine
from data.world.retrievers import LatentSpace, Stock, Terms
from data.world.world import draw_world

TEXTS = ["red sofa couch", "couch sofa old", "sofa couch new", "garden rose", "rose garden thorn", "thorn rose shrub"]
CATEGORY = np.array([0, 0, 0, 1, 1, 1])
STOCK = Stock(6, np.array([1.0, 5, 5, 0, 2, 9]))
MANY = WorldConstants(
    documents=600,
    queries=150,
    users=200,
    days=2,
    topics=12,
    entities_per_topic=4,
    initial_clicks=3000,
    popular_depth=5,
    similar_items_depth=5,
    clicked_words_depth=5,
    category_depth=5,
)


@pytest.fixture(scope="module")
def categories():
    return Categories(LatentSpace(Terms(TEXTS), dimensions=2, fitted_on=6), CATEGORY, 2, 6)


@pytest.fixture(scope="module")
def world():
    return draw_world(MANY, seed=0)


def test_the_category_of_a_query_is_that_of_the_nearest_documents(categories):
    assert categories.of_queries(["sofa", "rose thorn", "couch"]).tolist() == [0, 1, 0]


def test_popular_documents_are_those_of_the_category_by_clicks_then_by_age(categories):
    popular = PopularInCategory(categories)
    assert popular(["sofa", "thorn"], STOCK, k=4).tolist() == [[1, 2, 0, -1], [5, 4, 3, -1]]
    assert popular(["thorn"], Stock(5, STOCK.popularity), k=2).tolist() == [[4, 3]]


def test_any_documents_of_the_category_depend_on_the_query_and_the_day_alone(categories):
    everything = AnyInCategory(categories)
    alone = everything(["rose"], STOCK, k=2)
    together = everything(["sofa", "rose"], STOCK, k=2)
    assert alone[0].tolist() == together[1].tolist()
    assert set(together[0].tolist()) <= {0, 1, 2}
    assert set(together[1].tolist()) <= {3, 4, 5}
    assert sorted(everything(["rose"], STOCK, k=9)[0].tolist()) == [-1] * 6 + [3, 4, 5]


def test_similar_items_are_those_of_the_same_users_by_hand():
    # Users 0 and 1 clicked documents 0 and 1, user 2 documents 0 and 4. Columns: 0 has 3 users, 1 has 2, 4 has 1.
    clicks = Clicks(np.array([0, 0, 1, 1, 2, 2]), ["a", "b", "a", "b", "a", "c"], np.array([0, 1, 0, 1, 0, 4]))
    channel = SimilarItems(6).after(clicks)
    # cosine(0, 1) = 2 / sqrt(3 * 2) = .82; cosine(0, 4) = 1 / sqrt(3 * 1) = .58.
    assert channel(["a"], STOCK, k=4).tolist() == [[0, 1, 4, -1]]
    assert channel(["a"], Stock(4, STOCK.popularity), k=4).tolist() == [[0, 1, -1, -1]]
    assert channel(["c", "unasked"], STOCK, k=2).tolist() == [[4, 0], [-1, -1]]
    assert SimilarItems(6)(["a"], STOCK, k=2).tolist() == [[-1, -1]]


def test_clicked_words_carry_the_words_of_users_to_documents():
    clicks = Clicks(np.zeros(4, int), ["settee", "settee", "settee repair", "rose"], np.array([1, 1, 2, 4]))
    channel = ClickedWords(6).after(clicks)
    # No text has the word settee: document 1 has it alone, document 2 beside another word.
    assert channel(["settee"], STOCK, k=3).tolist() == [[1, 2, -1]]
    assert channel(["settee"], Stock(2, STOCK.popularity), k=3).tolist() == [[1, -1, -1]]
    assert channel(["unasked"], STOCK, k=1).tolist() == [[-1]]
    found = channel.cosines(["settee"], np.array([[1, 2, 4]]), published=6)[0]
    # Words: settee in 2 of 3 clicked documents, repair in 1: log(4 / 2) and log(4 / 1). Document 2: both, once.
    settee, repair = np.log(2) * np.log(4 / 2), np.log(2) * np.log(4 / 1)
    np.testing.assert_allclose(found, [1, settee / np.hypot(settee, repair), 0])


def test_initial_clicks_are_on_documents_from_before_the_first_day_and_mostly_relevant(world):
    clicks = draw_initial_clicks(world)
    assert 2900 < len(clicks.document) <= 3000
    assert (world.documents.published_at_us[clicks.document] < MANY.start_us).all()
    number = {text: query for query, text in enumerate(world.queries.text)}
    queries = np.array([number[text] for text in clicks.query])
    relevant = world.pair_grades(queries, clicks.document) >= 2
    assert relevant.mean() > 0.5
    shuffled = world.pair_grades(queries, np.random.default_rng(0).permutation(clicks.document)) >= 2
    assert shuffled.mean() < 0.3


def test_only_channels_with_a_depth_are_there(world):
    engine = present_engine(world)
    assert list(engine.retrievers) == ["bm25", "present", "popular", "similar_items", "clicked_words", "category"]
    assert engine.depth("popular") == 5
    assert engine.depth("bm25") == MANY.recall_depth
    small = draw_world(WorldConstants(documents=50, queries=10, users=5), seed=0)
    assert list(present_engine(small).retrievers) == ["bm25", "present"]
    assert behavioural_channels(small, engine.semantics, published=40) == {}


def test_channels_that_learn_know_the_clicks_of_the_day_and_the_others_stay(world):
    engine = present_engine(world)
    clicks = Clicks(np.array([0, 0]), [world.queries.text[0]] * 2, np.array([3, 7]))
    later = engine.after(clicks.document, clicks=clicks)
    assert later.retrievers["bm25"] is engine.retrievers["bm25"]
    query, stock = [world.queries.text[0]], Stock(400, later.popularity)
    assert set(later.retrievers["similar_items"](query, stock, k=5)[0].tolist()) == {3, 7, -1}
    assert (engine.retrievers["similar_items"](query, stock, k=5) == -1).all()
    assert (later.popularity - engine.popularity)[[3, 7]].tolist() == [1, 1]


def test_the_first_documents_of_the_engine_are_its_candidates_by_ranking_score(world):
    engine = present_engine(world)
    first = engine.first(world.queries.text[:5], published=400, k=12)
    stock = Stock(400, engine.popularity)
    for query, found in zip(world.queries.text[:5], first, strict=True):
        recalled = [engine.retrievers[name]([query], stock, k=engine.depth(name)) for name in engine.retrievers]
        assert set(found.tolist()) <= set(np.concatenate(recalled, axis=1)[0].tolist())
        assert len(set(found.tolist())) == 12
