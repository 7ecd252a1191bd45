"""P2: what the feed showed around a query."""

import random

import pytest

from data.perspectives.rows import count_supporters
from data.perspectives.system_level import nearest_views, supports


def found(events, **options):
    rows = count_supporters(supports(events, **options)).to_pyarrow().to_pylist()
    return sorted((r["query"], r["doc_id"], r["gap_seconds"], r["supporters"]) for r in rows)


def search(search_id, user_id, query, time):
    return {"search_id": search_id, "user_id": user_id, "query": query, "time": time}


def view(user_id, doc_id, time, **more):
    return {"user_id": user_id, "doc_id": doc_id, "time": time, **more}


def feed(events_of, searches, views):
    candidate = {"search_id": searches[0]["search_id"], "doc_id": "d0", "stage": "shown", "clicked": True}
    return events_of(searches=searches, candidates=[candidate], feed_views=views)


def test_the_window_lies_on_both_sides_and_its_borders_are_inside(events_of, at):
    events = feed(
        events_of,
        [search("s1", "u1", "A ", at(4000))],
        [
            view("u1", "d1", at(2200)),
            view("u1", "d2", at(5800)),
            view("u1", "d3", at(2199.999999)),
            view("u1", "d4", at(5800.000001)),
            view("u1", "d5", at(4000)),
            view("u2", "d6", at(4000)),
        ],
    )
    assert found(events) == [("a", "d1", 1800.0, 1), ("a", "d2", 1800.0, 1), ("a", "d5", 0.0, 1)]


@pytest.mark.parametrize(
    ("asked", "viewed", "missed"),
    [
        ("2024-02-29T23:50:00", "2024-03-01T00:20:00", "2024-03-01T00:20:01"),
        ("2024-01-01T00:10:00", "2023-12-31T23:40:00", "2023-12-31T23:39:59"),
        ("2024-05-31T23:59:59", "2024-06-01T00:29:59", "2024-06-01T00:30:00"),
    ],
)
def test_midnight_and_month_ends_are_like_any_moment(events_of, at, asked, viewed, missed):
    events = feed(
        events_of,
        [search("s1", "u1", "a", at(asked))],
        [view("u1", "d1", at(viewed)), view("u1", "d2", at(missed))],
    )
    assert found(events) == [("a", "d1", 1800.0, 1)]


def test_the_same_query_in_other_case_and_spacing_is_one_and_users_of_one_second_are_two(events_of, at):
    events = feed(
        events_of,
        [search("s1", "u1", "Red  shoes", at(1000)), search("s2", "u2", "red shoes ", at(1000))],
        [view("u1", "d1", at(1000)), view("u2", "d1", at(1000)), view("u2", "d2", at(1000))],
    )
    assert found(events) == [("red shoes", "d1", 0.0, 2), ("red shoes", "d2", 0.0, 1)]


def test_since_takes_what_the_later_of_search_and_view_does_not_precede(events_of, at):
    events = feed(
        events_of,
        [search("s1", "u1", "a", at(100)), search("s2", "u1", "b", at(200))],
        [view("u1", "d1", at(150)), view("u1", "d2", at(199)), view("u1", "d3", at(210))],
    )
    # Of "a" only the view at 210 s counts; of "b", which was itself not before, all do.
    assert found(events, since=at(200)) == [
        ("a", "d3", 110.0, 1),
        ("b", "d1", 50.0, 1),
        ("b", "d2", 1.0, 1),
        ("b", "d3", 10.0, 1),
    ]


def test_the_cap_takes_the_nearest_in_time_then_by_doc_id(events_of, at):
    events = feed(
        events_of,
        [search("s1", "u1", "a", at(1000))],
        [
            view("u1", "d4", at(990)),
            view("u1", "d2", at(1010)),
            view("u1", "d3", at(1010)),
            view("u1", "d1", at(1020)),
            view("u1", "d9", at(1001)),
        ],
    )
    assert found(events, max_feed_documents=3) == [("a", "d2", 10.0, 1), ("a", "d3", 10.0, 1), ("a", "d9", 1.0, 1)]


def test_repeated_views_and_searches_take_one_place_each(events_of, at):
    events = feed(
        events_of,
        [search("s1", "u1", "a", at(1000)), search("s2", "u1", "A", at(1100)), search("s3", "u2", "a", at(1000))],
        [
            view("u1", "d1", at(990)),
            view("u1", "d1", at(1099)),
            view("u1", "d2", at(1050)),
            view("u2", "d2", at(1003)),
        ],
    )
    assert found(events, max_feed_documents=2) == [("a", "d1", 1.0, 1), ("a", "d2", 3.0, 2)]


def test_a_long_watch_can_be_asked_for(events_of, at):
    events = feed(
        events_of,
        [search("s1", "u1", "a", at(1000))],
        [
            view("u1", "d1", at(990), watch_seconds=30.0),
            view("u1", "d2", at(990), watch_seconds=29.0),
            view("u1", "d3", at(990)),
        ],
    )
    assert [row[1] for row in found(events)] == ["d1", "d2", "d3"]
    assert [row[1] for row in found(events, only_long_watch=True)] == ["d1"]


def test_the_window_is_configuration(events_of, at):
    events = feed(
        events_of, [search("s1", "u1", "a", at(1000))], [view("u1", "d1", at(940)), view("u1", "d2", at(939))]
    )
    assert found(events, feed_window_seconds=60) == [("a", "d1", 60.0, 1)]


def reference(searches, views, *, window_seconds, max_documents, views_of_a_side, since):
    """(user, query, document, gap) of every support by the definition; views_of_a_side None pairs with all views."""
    gaps: dict[tuple[str, str], dict[str, float]] = {}
    for one in searches:
        counted = [
            view
            for view in views
            if view["user_id"] == one["user_id"] and (since is None or max(view["time"], one["time"]) >= since)
        ]
        sides = (
            [view for view in counted if view["time"] <= one["time"]],
            [view for view in counted if view["time"] > one["time"]],
        )
        for side in sides:
            near = sorted((abs((view["time"] - one["time"]).total_seconds()), view["doc_id"]) for view in side)
            for gap, doc_id in near[:views_of_a_side]:
                if gap <= window_seconds:
                    documents = gaps.setdefault((one["user_id"], one["query"]), {})
                    documents[doc_id] = min(gap, documents.get(doc_id, gap))
    return sorted(
        (*key, doc_id, gap)
        for key, documents in gaps.items()
        for gap, doc_id in sorted((gap, doc_id) for doc_id, gap in documents.items())[:max_documents]
    )


def drawn(chance, at, documents):
    """Searches and views of two users at half seconds, so that many times are equal; the first user has two thirds."""
    searches = [
        search(f"s{i:03d}", f"u{chance.randrange(3) // 2}", chance.choice("abc"), at(chance.randrange(120) / 2))
        for i in range(60)
    ]
    views = [view(f"u{chance.randrange(3) // 2}", doc_id, at(chance.randrange(120) / 2)) for doc_id in documents]
    return searches, views


@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("since", [None, 30])
@pytest.mark.parametrize("repeated", [False, True])
def test_supports_are_those_of_the_definition(events_of, at, limit, since, repeated):
    chance = random.Random(limit)
    names = [f"d{i}" for i in range(10)]
    catalogue = [{"doc_id": name, "title": "a"} for name in (*names, *(f"e{i:03d}" for i in range(120)))]
    documents = [chance.choice(names) if repeated else f"e{i:03d}" for i in range(120)]
    chance.shuffle(documents)
    searches, views = drawn(chance, at, documents)
    candidate = {"search_id": "s000", "doc_id": "d0", "stage": "shown", "clicked": True}
    events = events_of(documents=catalogue, searches=searches, candidates=[candidate], feed_views=views)
    since = None if since is None else at(since)
    rows = supports(events, feed_window_seconds=9, max_feed_documents=limit, since=since).to_pyarrow().to_pylist()
    found = sorted((r["user_id"], r["query"], r["doc_id"], r["gap_seconds"]) for r in rows)
    # Documents that were viewed once are the same as if every view of the window was paired.
    side = 2 * limit if repeated else None
    expected = {"window_seconds": 9, "max_documents": limit, "views_of_a_side": side, "since": since}
    assert found == reference(searches, views, **expected)
    assert len(found) >= 6


def test_the_pairs_of_a_shared_id_grow_with_its_searches_and_not_with_its_views(events_of, at):
    searches = [search(f"s{i}", "shared", f"query {i % 7}", at(i / 50)) for i in range(500)]
    views = [view("shared", f"d{i % 10}", at(i / 50)) for i in range(2000)]
    events = feed(events_of, searches, views)
    pairs = nearest_views(events.searches, events.feed_views, None, window_seconds=1800, limit=4)
    count = pairs.count().to_pyarrow().as_py()
    assert 500 * 4 <= count <= 500 * 8
