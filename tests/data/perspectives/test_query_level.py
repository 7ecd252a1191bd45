"""P1: reformulations. Users type what is written; times are seconds after midnight unless said otherwise."""

import random

import ibis
import pyarrow as pa
import pytest

from crops_jax.text import normalise_query
from data.perspectives.query_level import left_out, reformulations, supports
from data.perspectives.rows import count_supporters

CLICK = {"stage": "shown", "clicked": True}


def search(search_id, user_id, query, time):
    return {"search_id": search_id, "user_id": user_id, "query": query, "time": time}


def pairs_of(events, **options):
    rows = reformulations(events, **options).to_pyarrow().to_pylist()
    return sorted((r["user_id"], r["query"], r["via_query"], r["gap_seconds"]) for r in rows)


@pytest.fixture
def session(events_of, at):
    """Events of one user's searches given as (seconds or ISO text, query), each with a click on d0."""

    def build(*searches):
        rows = [search(f"s{i}", "u1", query, at(when)) for i, (when, query) in enumerate(searches)]
        return events_of(
            searches=rows, candidates=[{"search_id": row["search_id"], "doc_id": "d0", **CLICK} for row in rows]
        )

    return build


def test_exactly_ninety_seconds_are_inside_and_a_microsecond_more_is_not(session):
    assert pairs_of(session((0, "a"), (90, "b"))) == [("u1", "a", "b", 90.0)]
    assert pairs_of(session((0, "a"), (90.000001, "b"))) == []
    assert pairs_of(session((0.999999, "a"), (90.999999, "b"))) == [("u1", "a", "b", 90.0)]


def test_the_same_moment_is_not_later(session):
    assert pairs_of(session((5, "a"), (5, "b"))) == []


def test_every_later_query_within_the_window_counts(session):
    events = session((0, "a"), (40, "b"), (80, "c"), (120, "d"))
    assert pairs_of(events) == [
        ("u1", "a", "b", 40.0),
        ("u1", "a", "c", 80.0),
        ("u1", "b", "c", 40.0),
        ("u1", "b", "d", 80.0),
        ("u1", "c", "d", 40.0),
    ]


def test_the_same_query_in_other_case_and_spacing_is_no_reformulation(session):
    assert pairs_of(session((0, "red shoes"), (10, " RED   Shoes"), (20, "Red Shoe"))) == [
        ("u1", "red shoes", "red shoe", 10.0),
        ("u1", "red shoes", "red shoe", 20.0),
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2024-05-30T23:59:30", "2024-05-31T00:01:00"),
        ("2024-02-29T23:59:15", "2024-03-01T00:00:45"),
        ("2023-12-31T23:58:31", "2024-01-01T00:00:01"),
        ("2024-03-31T00:59:00", "2024-03-31T01:00:30"),
    ],
)
def test_midnight_and_month_ends_are_like_any_moment(session, first, second):
    assert pairs_of(session((first, "a"), (second, "b"))) == [("u1", "a", "b", 90.0)]


def test_users_are_kept_apart_even_in_the_same_second(events_of, at):
    events = events_of(
        searches=[
            search("s1", "u1", "a", at(10)),
            search("s2", "u2", "b", at(10)),
            search("s3", "u1", "c", at(11)),
            search("s4", "u2", "d", at(11)),
        ],
        candidates=[{"search_id": "s1", "doc_id": "d0", **CLICK}],
    )
    assert pairs_of(events) == [("u1", "a", "c", 1.0), ("u2", "b", "d", 1.0)]


def test_the_window_is_configuration(session):
    events = session((0, "a"), (10, "b"), (11, "c"))
    assert pairs_of(events, window_seconds=10) == [("u1", "a", "b", 10.0), ("u1", "b", "c", 1.0)]


def test_only_unsatisfied_leaves_out_searches_with_a_long_watch(events_of, at):
    events = events_of(
        searches=[
            search("s1", "u1", "a", at(0)),
            search("s2", "u1", "b", at(40)),
            search("s3", "u1", "c", at(80)),
        ],
        candidates=[
            {"search_id": "s1", "doc_id": "d0", "stage": "shown", "clicked": True, "watch_seconds": 5.0},
            {"search_id": "s2", "doc_id": "d1", "stage": "shown", "clicked": True, "watch_seconds": 30.0},
        ],
    )
    assert pairs_of(events, only_unsatisfied=True) == [("u1", "a", "b", 40.0), ("u1", "a", "c", 80.0)]


def reference(searches, *, window_seconds, max_later_searches, since):
    """(user, query, via_query, via_search_id) of every pair by the definition, and the left-out number by search_id."""
    pairs, beyond = [], {}
    for one in searches:
        later = [
            other
            for other in searches
            if other["user_id"] == one["user_id"]
            and 0 < (other["time"] - one["time"]).total_seconds() <= window_seconds
        ]
        later.sort(key=lambda other: (other["time"], other["search_id"]))
        queries = normalise_query(one["query"]), *(normalise_query(other["query"]) for other in later)
        pairs += [
            (one["user_id"], queries[0], via_query, other["search_id"])
            for other, via_query in zip(later[:max_later_searches], queries[1:])
            if via_query != queries[0] and (since is None or other["time"] >= since)
        ]
        cut = [other for other in later[max_later_searches:] if since is None or other["time"] >= since]
        if cut:
            beyond[one["search_id"]] = len(cut)
    return sorted(pairs), beyond


@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("since", [None, 30])
def test_pairs_and_those_beyond_the_limit_are_those_of_the_definition(events_of, at, limit, since):
    chance = random.Random(limit)
    searches = [
        search(f"s{i:03d}", f"u{chance.randrange(3) // 2}", chance.choice("abc"), at(chance.randrange(0, 120) / 2))
        for i in range(120)
    ]
    events = events_of(searches=searches, candidates=[{"search_id": "s000", "doc_id": "d0", **CLICK}])
    since = None if since is None else at(since)
    limits = {"window_seconds": 9, "max_later_searches": limit, "since": since}
    rows = reformulations(events, **limits).to_pyarrow().to_pylist()
    found = sorted((r["user_id"], r["query"], r["via_query"], r["via_search_id"]) for r in rows)
    beyond = {row["search_id"]: row["left_out"] for row in left_out(events, **limits).to_pyarrow().to_pylist()}
    assert (found, beyond) == reference(searches, **limits)
    assert len(found) > 30
    assert bool(beyond) == (limit < 100)


@pytest.fixture
def shop(events_of, at):
    """Two users who rephrase "shoe" to "shoes" after 20 and 30 s; u1 also goes on to "hat".

    Of the candidates of "shoes", u1 clicked d1 and was shown d2; u2 clicked d1, liked d3 and watched d4 long, and
    clicked d5, which was not shown. "hat" has a click on d6.
    """
    shown = {"stage": "shown", "clicked": False}
    return events_of(
        searches=[
            search("s1", "u1", "shoe", at(0)),
            search("s2", "u1", "shoes", at(20)),
            search("s3", "u1", "hat", at(40)),
            search("s4", "u2", "Shoe", at(0)),
            search("s5", "u2", "shoes", at(30)),
        ],
        candidates=[
            {"search_id": "s1", "doc_id": "d0", **CLICK},
            {"search_id": "s2", "doc_id": "d1", **CLICK},
            {"search_id": "s2", "doc_id": "d2", **shown},
            {"search_id": "s3", "doc_id": "d6", **CLICK},
            {"search_id": "s5", "doc_id": "d1", **CLICK},
            {"search_id": "s5", "doc_id": "d3", **shown, "liked": True},
            {"search_id": "s5", "doc_id": "d4", **shown, "watch_seconds": 31.0},
            {"search_id": "s5", "doc_id": "d5", "stage": "ranked_not_shown", "clicked": True},
        ],
    )


def similarity(**scores):
    rows = [(*pair.split("_"), score) for pair, score in scores.items()]
    columns = {"query": [r[0] for r in rows], "via_query": [r[1] for r in rows], "similarity": [r[2] for r in rows]}
    return ibis.memtable(pa.table(columns))


def rows_of(table):
    return sorted(table.to_pyarrow().to_pylist(), key=lambda row: (row["query"], row["doc_id"], row["via_query"]))


def test_supports_are_what_was_consumed_among_the_later_query_s_own(shop):
    pairs = reformulations(shop)
    alike = similarity(shoe_shoes=0.5, shoe_hat=0.49, shoes_hat=0.1)
    found = supports(shop, pairs, alike, beta=0.5)
    p1 = {"query": "shoe", "source": "query_level", "via_query": "shoes"}
    assert rows_of(count_supporters(found)) == [
        {**p1, "doc_id": "d1", "gap_seconds": 20.0, "supporters": 2},
        {**p1, "doc_id": "d3", "gap_seconds": 30.0, "supporters": 1},
        {**p1, "doc_id": "d4", "gap_seconds": 30.0, "supporters": 1},
    ]
    assert sorted((row["user_id"], row["doc_id"]) for row in found.to_pyarrow().to_pylist()) == [
        ("u1", "d1"),
        ("u2", "d1"),
        ("u2", "d3"),
        ("u2", "d4"),
    ]


def test_a_similarity_of_exactly_beta_is_enough(shop):
    pairs = reformulations(shop)
    alike = similarity(shoe_shoes=0.5, shoe_hat=0.499999, shoes_hat=0.1)
    assert {row["via_query"] for row in rows_of(supports(shop, pairs, alike))} == {"shoes"}
    assert {row["via_query"] for row in rows_of(supports(shop, pairs, alike, beta=0.4))} == {"shoes", "hat"}


def test_clocks_that_run_backwards_make_no_reformulation(session):
    # In the order of the log "b" follows "a", but by its clock it was before.
    assert pairs_of(session((100, "a"), (95, "b"), (101, "c"))) == [
        ("u1", "a", "c", 1.0),
        ("u1", "b", "a", 5.0),
        ("u1", "b", "c", 6.0),
    ]


def test_since_takes_pairs_whose_later_search_is_not_before(session, at):
    events = session((0, "a"), (50, "b"), (100, "c"))
    assert pairs_of(events, since=at(100)) == [("u1", "b", "c", 50.0)]
    assert pairs_of(events, since=at(100.000001)) == []
