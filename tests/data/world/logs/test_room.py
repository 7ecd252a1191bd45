"""The room of a tiny world, against loops over the searches of the last day."""

import numpy as np
import pytest

from data.simulate import room_of, serve_days, start_of_test
from data.world.constants import WorldConstants
from data.world.engine import present_engine
from data.world.logs.room import Wanted, recall
from data.world.logs.statistics import joined_searches
from data.world.retrievers import Stock
from data.world.world import draw_world

DAY_US = 86_400_000_000
TINY = WorldConstants(
    documents=500,
    queries=120,
    users=250,
    days=2,
    topics=8,
    entities_per_topic=3,
    popular_depth=10,
    similar_items_depth=10,
    clicked_words_depth=10,
    category_depth=10,
    initial_clicks=500,
)


@pytest.fixture(scope="module", params=[TINY, WorldConstants(documents=400, queries=60, users=120, days=1, topics=8)])
def served(request):
    world = draw_world(request.param, seed=1)
    return world, serve_days(world, present_engine(world))


def brute_force(world, served):
    """The wanted documents of each query, and what each system retrieves for it, one query after another."""
    constants, searches = world.constants, joined_searches(served.days)
    begin = start_of_test(constants).timestamp() * 1e6
    rows = [i for i in range(len(searches.user)) if searches.time_us[i] >= begin]
    clicks = {i: set(searches.pages.shown[i][searches.clicked[i]].tolist()) for i in rows}
    ct, qr = {}, {}
    for i in rows:
        if clicks[i]:
            ct.setdefault(int(searches.query[i]), set()).update(clicks[i])
        for j in rows:
            same = searches.user[i] == searches.user[j] and searches.query[i] != searches.query[j]
            if same and 0 < searches.time_us[j] - searches.time_us[i] <= 90_000_000:
                grades = world.query_grades(searches.query[[i]])[0]
                relevant = {document for document in clicks[j] if grades[document] >= 2}
                if relevant:
                    qr.setdefault(int(searches.query[i]), set()).update(relevant)
    midnight = constants.start_us + (constants.days - 1) * DAY_US
    published = int((world.documents.published_at_us < midnight).sum())
    engine = served.last_engine

    def bm25(query):
        scores = np.round(engine.bm25.scores([world.queries.text[query]], published=published)[0], 4)
        return [d for d in sorted(range(published), key=lambda d: (-scores[d], d)) if scores[d] > 0][:100]

    def oracle(query):
        grades, quality = world.query_grades(np.array([query]))[0], world.documents.quality
        best = sorted(range(published), key=lambda d: (-grades[d], -quality[d]))
        return [d for d in best if grades[d] >= 2][:100]

    def mean(wanted, retrieve):
        return np.mean([len(wanted[query] & set(retrieve(query))) / len(wanted[query]) for query in sorted(wanted)])

    found = {name: (mean(ct, system), mean(qr, system)) for name, system in (("bm25", bm25), ("oracle", oracle))}
    return found, published, (len(ct), len(qr))


def test_room_against_loops(served):
    room = room_of(*served)
    found, published, queries = brute_force(*served)
    for name, (ct, qr) in found.items():
        assert room[name] == {
            "ct_recall@100": pytest.approx(ct, abs=1e-4),
            "qr_recall@100": pytest.approx(qr, abs=1e-4),
        }
    assert (room["ct_queries"], room["qr_queries"]) == queries
    assert min(queries) > 5
    expected = pytest.approx(100 / published, abs=1e-4)
    assert room["random"] == {"ct_recall@100": expected, "qr_recall@100": expected}


def test_the_present_engine_finds_what_it_showed_and_channels_share_the_clicks(served):
    _, days = served
    room = room_of(*served)
    depths = [days.last_engine.depth(name) for name in days.last_engine.retrievers]
    # Where all that the channels find fits into 100 places, a click is always among it.
    assert (room["present_engine"]["ct_recall@100"] == 1.0) == (sum(depths) <= 100)
    shares = [channel["share_of_clicks"] for channel in room["channels"].values()]
    assert list(room["channels"]) == list(days.last_engine.retrievers)
    assert sum(shares) >= 1
    assert all(0 <= share <= 1 for share in shares)


def test_a_channel_alone(served):
    world, days = served
    room = room_of(*served)
    clicked = {}
    searches = joined_searches(days.days)
    begin = start_of_test(world.constants).timestamp() * 1e6
    for i in np.flatnonzero(searches.time_us >= begin):
        clicked.setdefault(int(searches.query[i]), set()).update(searches.pages.shown[i][searches.clicked[i]].tolist())
    clicked = {query: documents for query, documents in clicked.items() if documents}
    midnight = world.constants.start_us + (world.constants.days - 1) * DAY_US
    stock = Stock(int((world.documents.published_at_us < midnight).sum()), days.last_engine.popularity)
    recalls = []
    for query, documents in clicked.items():
        found = days.last_engine.retrievers["present"]([world.queries.text[query]], stock, k=100)[0]
        recalls.append(len(documents & set(found.tolist())) / len(documents))
    assert room["channels"]["present"]["ct_recall@100"] == pytest.approx(np.mean(recalls), abs=1e-4)


def test_recall_by_hand():
    wanted = Wanted(np.array([2, 2, 7]), np.array([5, 6, 5]))
    retrieved = np.array([[5, 9], [6, -1], [5, 6]])
    assert recall(wanted, np.array([2, 4, 7]), retrieved) == pytest.approx((1 / 2 + 1) / 2)
    nothing = Wanted(np.empty(0, int), np.empty(0, int))
    assert recall(nothing, np.empty(0, int), np.empty((0, 2), int)) is None
