"""P2: what the feed showed around a query."""

from data.perspectives.system_level import candidates


def found(events, **options):
    rows = candidates(events, **options).to_pyarrow().to_pylist()
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


def test_a_day_s_end_is_like_any_moment(events_of, at):
    events = feed(
        events_of,
        [search("s1", "u1", "a", at("2024-02-29T23:50:00"))],
        [view("u1", "d1", at("2024-03-01T00:20:00")), view("u1", "d2", at("2024-03-01T00:20:01"))],
    )
    assert found(events) == [("a", "d1", 1800.0, 1)]


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
