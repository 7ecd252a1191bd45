"""P0 and the negatives of the log."""

import pytest

from data.mining.evidence import Evidence
from data.mining.labelling import supported_rows
from data.perspectives.search_log import SOURCE, behaviour_recorded, supports


def found(events, **options):
    evidence = Evidence({SOURCE: supports(events, **options)}, events.searches, behaviour_recorded(events, **options))
    (table,), _ = supported_rows(evidence, None, alpha=0.6, min_supporters=1)
    rows = table.to_pyarrow().to_pylist()
    return sorted((r["query"], r["doc_id"], r["level"], r["source"], r["supporters"]) for r in rows)


def search(search_id, user_id, query, time):
    return {"search_id": search_id, "user_id": user_id, "query": query, "time": time}


def candidate(search_id, doc_id, stage="shown", **more):
    return {"search_id": search_id, "doc_id": doc_id, "stage": stage, **more}


def test_each_fate_has_its_level(events_of, at):
    events = events_of(
        searches=[search("s1", "u1", "Red  Shoes", at(0))],
        candidates=[
            candidate("s1", "d0", clicked=True),
            candidate("s1", "d1", clicked=False, liked=True),
            candidate("s1", "d2", clicked=False, watch_seconds=30.0),
            candidate("s1", "d3", clicked=False, liked=False, watch_seconds=29.9),
            candidate("s1", "d4", "ranked_not_shown"),
            candidate("s1", "d5", "filtered_before_ranking"),
        ],
    )
    assert found(events) == [
        ("red shoes", "d0", 4, "search_log", 1),
        ("red shoes", "d1", 4, "search_log", 1),
        ("red shoes", "d2", 4, "search_log", 1),
        ("red shoes", "d3", 3, "shown_not_clicked", 1),
        ("red shoes", "d4", 2, "ranked_not_shown", 1),
        ("red shoes", "d5", 1, "filtered_before_ranking", 1),
    ]


def test_null_is_not_a_click(events_of, at):
    events = events_of(
        searches=[search("s1", "u1", "a", at(0))],
        candidates=[candidate("s1", "d0", clicked=True), candidate("s1", "d1"), candidate("s1", "d2", liked=True)],
    )
    assert [row[1:3] for row in found(events)] == [("d0", 4), ("d1", 3), ("d2", 4)]


def test_a_log_that_records_no_behaviour_says_nothing_of_what_was_shown(events_of, at):
    events = events_of(
        searches=[search("s1", "u1", "a", at(0))],
        candidates=[candidate("s1", "d0"), candidate("s1", "d1", "ranked_not_shown")],
    )
    assert found(events) == [("a", "d1", 2, "ranked_not_shown", 1)]


def test_a_click_on_what_was_not_shown_is_no_positive(events_of, at):
    events = events_of(
        searches=[search("s1", "u1", "a", at(0))],
        candidates=[candidate("s1", "d0", clicked=True), candidate("s1", "d1", "ranked_not_shown", clicked=True)],
    )
    assert found(events)[1] == ("a", "d1", 2, "ranked_not_shown", 1)


def test_supporters_are_distinct_users_of_the_normalised_query(events_of, at):
    events = events_of(
        searches=[
            search("s1", "u1", "a b", at(0)),
            search("s2", "u1", "A  B", at(500)),
            search("s3", "u2", "ａ b", at(500)),
        ],
        candidates=[candidate(s, "d0", clicked=True) for s in ("s1", "s2", "s3")],
    )
    assert found(events) == [("a b", "d0", 4, "search_log", 2)]


def test_exactly_the_long_watch_is_enough_and_liking_needs_no_click(events_of, at):
    events = events_of(
        searches=[search("s1", "u1", "a", at(0))],
        candidates=[
            candidate("s1", "d0", watch_seconds=30.0),
            candidate("s1", "d1", watch_seconds=29.999999),
            candidate("s1", "d2", liked=True),
        ],
    )
    assert [row[1:3] for row in found(events)] == [("d0", 4), ("d1", 3), ("d2", 4)]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [("2024-05-30T23:59:59.999999", "2024-05-31T00:00:00"), ("2023-12-31T23:59:59", "2024-01-01T00:00:00")],
)
def test_since_begins_with_its_moment(events_of, at, earlier, later):
    events = events_of(
        searches=[search("s1", "u1", "a", at(earlier)), search("s2", "u1", "b", at(later))],
        candidates=[candidate("s1", "d0", clicked=True), candidate("s2", "d1", clicked=True)],
    )
    assert [row[0] for row in found(events, since=at(later))] == ["b"]
    assert [row[0] for row in found(events, since=at(earlier))] == ["a", "b"]


def test_two_users_in_one_second_are_two_supporters(events_of, at):
    events = events_of(
        searches=[search("s1", "u1", "a", at(7)), search("s2", "u2", "A", at(7)), search("s3", "u1", " a", at(7))],
        candidates=[candidate(s, "d0", clicked=True) for s in ("s1", "s2", "s3")],
    )
    assert found(events) == [("a", "d0", 4, "search_log", 2)]


def test_a_document_of_both_fates_has_both_rows(events_of, at):
    events = events_of(
        searches=[search("s1", "u1", "a", at(0)), search("s2", "u2", "a", at(0))],
        candidates=[candidate("s1", "d0", clicked=True), candidate("s2", "d0", clicked=False)],
    )
    assert [row[2] for row in found(events)] == [3, 4]


def test_the_long_watch_is_configuration(events_of, at):
    events = events_of(
        long_watch_seconds=10.0,
        searches=[search("s1", "u1", "a", at(0))],
        candidates=[candidate("s1", "d0", watch_seconds=10.0), candidate("s1", "d1", watch_seconds=9.0)],
    )
    assert [row[2] for row in found(events)] == [4, 3]


def test_before_is_exclusive(events_of, at):
    events = events_of(
        searches=[search("s1", "u1", "a", at(99)), search("s2", "u1", "b", at(100))],
        candidates=[candidate("s1", "d0", clicked=True), candidate("s2", "d1", clicked=True)],
        feed_views=[{"user_id": "u1", "doc_id": "d3", "time": at(t)} for t in (99, 100)],
    )
    earlier = events.before(at(100))
    assert [row[0] for row in found(earlier)] == ["a"]
    assert earlier.feed_views.count().to_pyarrow().as_py() == 1
