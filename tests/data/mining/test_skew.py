"""One user with very many searches, one query with very many impressions: no join of mining goes quadratic.

What is counted is the pairs of rows that a hash join has to look at, not time.
"""

import json

import ibis
import ibis.expr.operations as ops
import pytest

from data.labels.assign_levels import assign_levels
from data.perspectives import query_level, search_log, system_level
from data.perspectives.rows import as_rows, count_supporters

SEARCHES = 4_000


def pairs_that_meet(table):
    """Over all joins below a table: pairs of rows for which the equalities of the join hold, whatever else it asks."""

    def equalities_alone(node, fields):
        changed = dict(fields or zip(node.__argnames__, node.__args__, strict=True))
        if isinstance(node, ops.JoinLink):
            changed["predicates"] = tuple(asked for asked in changed["predicates"] if isinstance(asked, ops.Equals))
        return node.__recreate__(changed)

    joins = table.op().replace(equalities_alone).find(ops.JoinChain)
    return sum(int(join.to_expr().count().to_pyarrow().as_py()) for join in joins)


@pytest.fixture
def busy(events_of, at):
    """One user who asks every minute, and views a document of the feed as often."""
    return events_of(
        searches=[
            {"search_id": f"s{i}", "user_id": "u", "query": f"q{i % 3}", "time": at(60 * i)} for i in range(SEARCHES)
        ],
        candidates=[
            {"search_id": f"s{i}", "doc_id": "d1", "stage": "shown", "clicked": i % 2 == 0} for i in range(SEARCHES)
        ],
        feed_views=[{"user_id": "u", "doc_id": f"d{i % 10}", "time": at(60 * i + 30)} for i in range(SEARCHES)],
    )


def test_one_user_s_searches_meet_only_those_of_the_window(busy):
    pairs = query_level.reformulations(busy)
    assert pairs.count().to_pyarrow().as_py() == SEARCHES - 1
    assert SEARCHES <= pairs_that_meet(pairs) <= 5 * SEARCHES


def test_a_shared_id_meets_a_fixed_number_of_searches_for_each(events_of, at):
    """Fifty searches a second: 4,500 of them are within the window of each."""
    busy = events_of(
        searches=[
            {"search_id": f"s{i:05d}", "user_id": "u", "query": f"q{i % 3}", "time": at(i / 50)}
            for i in range(SEARCHES)
        ],
        candidates=[{"search_id": "s00000", "doc_id": "d1", "stage": "shown", "clicked": True}],
    )
    pairs = query_level.reformulations(busy)
    assert 60 * SEARCHES < pairs.count().to_pyarrow().as_py() <= 100 * SEARCHES
    assert pairs_that_meet(pairs) <= 200 * SEARCHES


def test_one_user_s_feed_meets_only_the_searches_of_the_window(busy):
    supports = system_level.supports(busy, feed_window_seconds=300)
    # Ten views within five minutes on either side, from two slots of five minutes for each side.
    assert 10 * SEARCHES <= pairs_that_meet(supports) <= 20 * SEARCHES
    assert 0 < supports.count().to_pyarrow().as_py() <= 3 * 10


def test_one_query_s_impressions_each_meet_their_own_search(busy):
    one = busy._replace(
        impressions=busy.impressions.mutate(query=ibis.literal("q"), user_id=busy.impressions.search_id)
    )
    rows = as_rows(count_supporters(search_log.supports(one)), level=4)
    labels = assign_levels(rows)
    assert pairs_that_meet(labels) == SEARCHES
    (label,) = labels.to_pyarrow().to_pylist()
    supporters = [entry["supporters"] for entry in json.loads(label["evidence"])]
    assert supporters == [SEARCHES // 2, SEARCHES // 2]
