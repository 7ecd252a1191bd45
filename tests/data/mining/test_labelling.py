"""The support threshold, against a reference written from its rules."""

from collections import defaultdict

import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.mining.evidence import Evidence
from data.mining.labelling import queries_of_enough, supported_rows
from data.perspectives.rows import SUPPORTS

SCHEMA = pa.schema([(name, kind.to_pyarrow()) for name, kind in SUPPORTS.items()])
LEVELS = {"search_log": 4, "query_level": 5, "system_level": 4, "shown_not_clicked": 3, "ranked_not_shown": 2}
SCORES = {("q", "d1"): 0.9, ("q", "d2"): 0.6, ("r", "d1"): 0.7, ("r", "d2"): 0.1}
ALPHA = 0.6


def rows_by_rules(supports, searches, least):
    """The rows as the docstring of data.mining.labelling says: sets of users, pair by pair."""
    users_of, gaps = defaultdict(set), defaultdict(list)
    for user, query, doc, source, via, gap in supports:
        if source in {"query_level", "system_level"} and SCORES[query, doc] <= ALPHA:
            continue
        users_of[query, doc, source, via].add(user)
        gaps[query, doc, source, via] += [] if gap is None else [gap]
    of_pair = defaultdict(set)
    for (query, doc, source, _), users in users_of.items():
        of_pair[query, doc, source] |= users
    typed = {query: {user for user, typed in searches if typed == query} for _, query in searches}
    doubtful = {
        (query, doc) for (query, doc, source), users in of_pair.items() if LEVELS[source] >= 4 and len(users) < least
    }
    rows = []
    for pair, users in of_pair.items():
        entries = {key[3]: (who, gaps[key]) for key, who in users_of.items() if key[:3] == pair}
        if LEVELS[pair[2]] < 4:
            if least == 1 or (len(typed[pair[0]]) >= least and pair[:2] not in doubtful):
                rows.append(row(pair, None, len(users) if len(users) >= least else None, []))
        elif len(users) >= least:
            rows += positive_rows(pair, entries, least)
    return sorted(rows, key=repr)


def positive_rows(pair, entries, least):
    few = [entry for entry in entries.values() if len(entry[0]) < least]
    rows = [row(pair, via, len(who), near) for via, (who, near) in entries.items() if len(who) >= least]
    together = set().union(*(who for who, _ in few))
    if len(together) >= least:
        rows.append(row(pair, None, len(together), [gap for _, near in few for gap in near]))
    return rows


def row(pair, via, supporters, gaps):
    query, doc, source = pair
    score = SCORES[query, doc] if source in {"query_level", "system_level"} else None
    return (query, doc, LEVELS[source], source, score, via, min(gaps, default=None), supporters)


def rows_found(supports, searches, least, recorded=True):
    perspective = {"shown_not_clicked": "search_log", "ranked_not_shown": "search_log"}
    by = defaultdict(list)
    for support in supports:
        by[perspective.get(support[3], support[3])].append(dict(zip(SCHEMA.names, support, strict=True)))
    tables = {name: ibis.memtable(pa.Table.from_pylist(rows, SCHEMA)) for name, rows in by.items()}
    users = pa.table({"user_id": [user for user, _ in searches], "query": [query for _, query in searches]})
    scores = pa.table(
        {"query": [q for q, _ in SCORES], "doc_id": [d for _, d in SCORES], "score": list(SCORES.values())}
    )
    evidence = Evidence(tables, ibis.memtable(users), recorded)
    found, counts = supported_rows(evidence, ibis.memtable(scores), alpha=ALPHA, min_supporters=least)
    return sorted((tuple(one.values()) for table in found for one in table.to_pyarrow().to_pylist()), key=repr), counts


def support(source):
    reformulated = source == "query_level"
    return st.tuples(
        st.sampled_from(["u1", "u2", "u3", "u4"]),
        st.sampled_from(["q", "r"]),
        st.sampled_from(["d1", "d2"]),
        st.just(source),
        st.sampled_from(["x", "y", "z"]) if reformulated else st.none(),
        st.sampled_from([1.0, 2.5]) if source in {"query_level", "system_level"} else st.none(),
    )


@settings(max_examples=6)
@given(
    st.lists(st.sampled_from(list(LEVELS)).flatmap(support), min_size=8, max_size=60),
    st.lists(st.tuples(st.sampled_from(["u1", "u2", "u3", "u4"]), st.sampled_from(["q", "r"])), max_size=4),
    st.sampled_from([1, 2, 3]),
)
def test_the_rules(supports, more_searches, least):
    # Who supports anything of a query has typed it.
    searches = [(user, query) for user, query, *_ in supports] + more_searches
    assert rows_found(supports, searches, least)[0] == rows_by_rules(supports, searches, least)


def through(user, via, doc="d1", gap=10.0):
    return (user, "q", doc, "query_level", via, gap)


def test_a_chain_that_one_user_took_is_merged_with_others_and_left_out_alone():
    two_vias = [through("u1", "x", gap=3.0), through("u2", "y"), through("u3", "z"), through("u4", "z")]
    rows, counts = rows_found(two_vias, [], 2)
    assert [row[5:] for row in rows] == [("z", 10.0, 2), (None, 3.0, 2)]
    assert counts == {"query_level": 0, "query_level_evidence": 2}
    rows, counts = rows_found([through("u1", "x"), through("u3", "z"), through("u4", "z")], [], 2)
    assert [row[5:] for row in rows] == [("z", 10.0, 2)]
    assert counts == {"query_level": 0, "query_level_evidence": 1}


def test_one_user_who_took_two_ways_is_one_supporter():
    rows, counts = rows_found([through("u1", "x"), through("u1", "y")], [], 2)
    assert rows == []
    assert counts == {"query_level": 1, "query_level_evidence": 0}


def fate(user, source, doc="d1", query="q"):
    return (user, query, doc, source, None, None)


def test_negatives_need_a_query_of_enough_users_and_hide_how_few_saw_them():
    supports = [fate("u1", "ranked_not_shown"), fate("u3", "ranked_not_shown", query="r")]
    rows, counts = rows_found(supports, [("u1", "q"), ("u2", "q"), ("u3", "r")], 2)
    assert rows == [("q", "d1", 2, "ranked_not_shown", None, None, None, None)]
    assert counts == {"search_log": 0, "negatives": 1}


@pytest.mark.parametrize("source", ["search_log", "query_level"])
def test_a_pair_with_too_few_supporters_is_no_negative_either(source):
    positive = fate("u1", "search_log") if source == "search_log" else through("u1", "x")
    passed_over = [fate(user, "shown_not_clicked") for user in ("u2", "u3")]
    rows, counts = rows_found([positive, *passed_over], [(user, "q") for user in ("u1", "u2", "u3")], 2)
    assert rows == []
    assert counts[source] == counts["negatives"] == 1


def test_a_log_that_records_no_behaviour_says_nothing_of_what_was_shown():
    supports = [fate("u1", "shown_not_clicked"), fate("u1", "ranked_not_shown")]
    assert [row[3] for row in rows_found(supports, [], 1, recorded=False)[0]] == ["ranked_not_shown"]


def test_queries_are_counted_by_distinct_users():
    searches = ibis.memtable(pa.table({"user_id": ["u1", "u1", "u1", "u2"], "query": ["q", "q", "r", "r"]}))
    assert queries_of_enough(searches, 2).to_pyarrow().to_pylist() == [{"query": "r"}]
