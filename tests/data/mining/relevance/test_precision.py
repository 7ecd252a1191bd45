"""Precision of sources, alpha by precision and the share of random pairs, on tables worked out by hand."""

import ibis
import numpy as np
import pyarrow as pa
import pytest

from crops_jax import artifacts
from crops_jax.errors import InputError
from crops_jax.retrieval.intervals import bootstrap_ratio
from data.mining.evidence import Evidence
from data.mining.relevance.precision import (
    MAX_RANDOM_PASSING,
    Judges,
    choose_alpha,
    judges,
    precision_by_source,
    random_pair_scores,
    random_pairs_limit,
    share_passing,
)
from data.mining.relevance.training_pairs import JUDGEMENTS
from data.perspectives.rows import as_supports
from data.tables import open_logs


def supports(source, *pairs):
    rows = [{"user_id": "u", "query": query, "doc_id": doc_id} for query, doc_id in pairs]
    return as_supports(ibis.memtable(pa.Table.from_pylist(rows)), source=source)


def judged(relevance):
    rows = [{"query": q, "doc_id": d, "relevant": relevant} for (q, d), relevant in relevance.items()]
    return Judges(ibis.memtable(pa.Table.from_pylist(rows)), "judgements of split dev", 1.0)


def scored(scores):
    return ibis.memtable(
        pa.Table.from_pylist([{"query": q, "doc_id": d, "score": score} for (q, d), score in scores.items()])
    )


def test_precision_before_and_after_theta_by_hand():
    pairs = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "9")]
    evidence = Evidence(
        {"query_level": supports("query_level", *pairs), "search_log": supports("search_log", ("a", "1"))}, None, True
    )
    relevance = judged({("a", "1"): True, ("a", "2"): False, ("b", "1"): True, ("c", "1"): False})
    scores = scored({("a", "1"): 0.9, ("a", "2"): 0.6, ("b", "1"): 0.61, ("b", "9"): 0.99})
    found = precision_by_source(evidence, scores, relevance, alpha=0.6)
    assert list(found) == ["query_level", "search_log"]
    before, after = found["query_level"]["before"], found["query_level"]["after"]
    assert (before["pairs"], before["judged"], before["value"], before["queries"]) == (4, 3, 0.6667, 2)
    assert (after["pairs"], after["judged"], after["value"]) == (3, 2, 1.0)
    assert before["low"] <= before["value"] <= before["high"]
    assert found["search_log"] == {
        "before": {"pairs": 1, "judged": 1, "value": 1.0, "low": 1.0, "high": 1.0, "queries": 1}
    }


def test_a_source_without_a_judged_pair_has_no_precision():
    evidence = Evidence({"search_log": supports("search_log", ("z", "1"))}, None, True)
    found = precision_by_source(evidence, None, judged({("a", "1"): True}), alpha=0.6)
    assert found["search_log"]["before"] == {
        "pairs": 1, "judged": 0, "value": None, "low": None, "high": None, "queries": 0
    }  # fmt: skip


def candidates(relevant_from_above):
    """40 candidates of scores .99, .97, ... with the relevance of each, from the best one down."""
    pairs = [("a", str(i)) for i in range(len(relevant_from_above))]
    evidence = Evidence({"system_level": supports("system_level", *pairs)}, None, True)
    scores = scored({pair: round(0.99 - 0.02 * i, 2) for i, pair in enumerate(pairs)})
    return evidence, scores, judged(dict(zip(pairs, relevant_from_above, strict=True)))


def test_alpha_is_the_smallest_with_the_precision():
    # The first 27 of 30 are relevant: precision .9 at 30, and below it from 31 on.
    evidence, scores, relevance = candidates([True] * 27 + [False] * 13)
    alpha = choose_alpha(evidence, scores, relevance, precision=0.9)
    assert alpha == pytest.approx(0.99 - 0.02 * 30)
    passing = scores.filter(scores.score > alpha).count().to_pyarrow().as_py()
    assert passing == 30
    # Everything passes where all is good enough.
    every = choose_alpha(evidence, scores, relevance, precision=0.5)
    assert scores.filter(scores.score > every).count().to_pyarrow().as_py() == 40


def test_equal_scores_pass_together():
    pairs = [("a", str(i)) for i in range(30)]
    evidence = Evidence({"system_level": supports("system_level", *pairs)}, None, True)
    relevance = judged({pair: i < 22 for i, pair in enumerate(pairs)})
    scores = scored({pair: 0.8 if i < 20 else 0.5 for i, pair in enumerate(pairs)})
    assert choose_alpha(evidence, scores, relevance, precision=0.95) == 0.5


def test_a_precision_that_cannot_be_reached_is_refused():
    evidence, scores, relevance = candidates([True, False] * 20)
    with pytest.raises(InputError, match=r"best precision is 0\.5"):
        choose_alpha(evidence, scores, relevance, precision=0.9)
    evidence, scores, relevance = candidates([True] * 19)
    with pytest.raises(InputError, match="19 candidates are judged, and 20 are needed"):
        choose_alpha(evidence, scores, relevance, precision=0.9)
    with pytest.raises(InputError, match="0 candidates are judged"):
        choose_alpha(evidence, scores, None, precision=0.9)


def test_the_ratio_and_its_interval():
    interval = bootstrap_ratio([1, 0, 3, 0], [2, 1, 3, 0])
    assert (interval.value, interval.queries) == (4 / 6, 3)
    assert 0 <= interval.low < 4 / 6 < interval.high <= 1
    assert bootstrap_ratio([2, 2], [2, 2])[:3] == (1, 1, 1)
    assert np.isnan(bootstrap_ratio([0], [0]).value)
    with pytest.raises(ValueError, match="two numbers for each query"):
        bootstrap_ratio([1], [1, 2])


@pytest.fixture
def graded(write_logs):
    def judgement(query, grade, split):
        return {"query": query, "doc_id": "d0", "grade": grade, "split": split}

    return open_logs(
        write_logs(judgements=[judgement("a", 2.0, "dev"), judgement("b", 1.0, "train"), judgement("c", 2.0, "test")])
    )


@pytest.mark.parametrize(
    ("queries", "fitted_on", "name", "seen"),
    [
        ("ab", JUDGEMENTS, "judgements of split dev", {"a"}),
        ("ab", "clicks", "judgements of split dev and train", {"a", "b"}),
        ("b", JUDGEMENTS, "judgements of split train, on which theta was fitted", {"b"}),
        ("c", "clicks", None, set()),
    ],
)
def test_which_judgements_measure_the_sources(graded, queries, fitted_on, name, seen):
    connection = graded.connect()
    table = ibis.memtable(pa.table({"query": list(queries)}))
    found = judges(connection, graded, table, relevant_grade=None, fitted_on=fitted_on)
    if name is None:
        assert found is None
        return
    assert found.name.startswith(name)
    assert found.relevant_grade == 1.0
    assert set(found.table.to_pyarrow()["query"].to_pylist()) == seen


@pytest.mark.parametrize("declared", [True, False])
def test_judgements_of_a_group_hold_for_all_its_queries(write_logs, at, declared):
    """The topic T has the queries a, b and c, and U has c and d. a and d are judged."""
    asked = [("a", "T"), (" B", "T"), ("c", "T"), ("c", "U"), ("d", "U"), ("e", None)]
    folder = write_logs(
        searches=[
            {"search_id": f"s{i}", "user_id": "u", "query": query, "time": at(i), "group": group}
            for i, (query, group) in enumerate(asked)
        ],
        judgements=[
            {"query": query, "doc_id": "d0", "grade": grade, "split": split}
            for query, grade, split in (("a", 0.0, "dev"), ("d", 1.0, "dev"), ("b", 1.0, "test"))
        ],
    )
    if declared:
        declaration = artifacts.new_manifest(
            program="data.convert", kind="logs", arguments={}, inputs={}, judged_by_group=True
        )
        artifacts.write_manifest(folder, declaration)
    logs = open_logs(folder)
    table = ibis.memtable(pa.table({"query": list("abcde")}))
    found = judges(logs.connect(), logs, table, relevant_grade=None, fitted_on=JUDGEMENTS)
    assert found is not None
    rows = {row["query"]: row["relevant"] for row in found.table.to_pyarrow().to_pylist()}
    assert rows == ({"a": False, "b": False, "c": True, "d": True} if declared else {"a": False, "d": True})
    assert found.name == f"judgements {'for all queries of a group, ' if declared else ''}of split dev"


class SharedLetter:
    """A discriminator that passes a pair if the title ends with the query."""

    pairs_at_once = 100
    fingerprint = None

    def score(self, queries, documents):
        return np.array([float(d.endswith(q)) for q, d in zip(queries, documents, strict=True)], np.float32)

    def save(self, folder):
        raise NotImplementedError


def test_the_share_of_random_pairs_that_pass(write_logs):
    # Ten documents "title 0" to "title 9", and the queries "1", "2" and "x": 2 of 30 pairs pass.
    logs = write_logs(judgements=[{"query": "1", "doc_id": "d1", "grade": 1.0}])
    connection = open_logs(logs).connect()
    queries = ibis.memtable(pa.table({"query": ["1", "2", "x", "x"]}))
    share = share_passing(random_pair_scores(connection, queries, SharedLetter()), alpha=0.5)
    assert share == pytest.approx(2 / 30, abs=0.015)
    assert share > MAX_RANDOM_PASSING
    nothing = ibis.memtable(pa.table({"query": pa.array([], pa.string())}))
    assert share_passing(random_pair_scores(connection, nothing, SharedLetter()), alpha=0.5) is None


def test_at_most_two_percent_of_random_pairs_exceed_their_limit():
    scores = np.arange(100)[np.random.default_rng(0).permutation(100)] / 100
    assert random_pairs_limit(scores) == 0.97  # .98 and .99 exceed it
    assert random_pairs_limit(np.array([0.1, 0.9])) == 0.9
    assert random_pairs_limit(np.ones(50)) == 1.0
    assert random_pairs_limit(np.empty(0)) == 0.0
