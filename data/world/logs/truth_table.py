"""The truth of the world about the queries that were searched: every relevant document, and whether it was shown."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int, Int8

from data.world.behaviour.day import Day
from data.world.world import RELEVANT_GRADE, World

_QUERIES_PER_BATCH = 2048


class RelevantPairs(NamedTuple):
    """Pairs of a query and a document that is relevant for it, sorted by query, then by document."""

    query: Int[np.ndarray, "pairs"]
    document: Int[np.ndarray, "pairs"]
    grade: Int8[np.ndarray, "pairs"]


def find_relevant(world: World, queries: Int[np.ndarray, "queries"]) -> RelevantPairs:
    """Returns all pairs of these queries whose grade is at least RELEVANT_GRADE.

    It equals world.query_grades(queries) >= RELEVANT_GRADE. A relevant document has the topic and the entity of an
    intent of the query, so only those documents are graded.
    """
    parts = [
        _find_in_batch(world, queries[start : start + _QUERIES_PER_BATCH])
        for start in range(0, len(queries), _QUERIES_PER_BATCH)
    ]
    empty = RelevantPairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int8))
    return RelevantPairs(*(np.concatenate(columns) for columns in zip(*(parts or [empty]), strict=True)))


def _find_in_batch(world: World, queries: np.ndarray) -> RelevantPairs:
    members = np.argsort(world.entity_group, kind="stable")
    sorted_group = world.entity_group[members]
    row, column = np.nonzero(world.queries.intents[queries] >= 0)
    query, intent = queries[row], world.queries.intents[queries[row], column]
    group = intent // world.constants.facets
    first = np.searchsorted(sorted_group, group)
    count = np.searchsorted(sorted_group, group, side="right") - first
    pair = np.repeat(np.arange(len(query)), count)
    document = members[np.arange(len(pair)) - np.repeat(np.cumsum(count) - count - first, count)]
    grade = world.intent_grades(intent[pair], document)
    kept = grade >= RELEVANT_GRADE
    query, document, grade = query[pair][kept], document[kept], grade[kept]
    # Of the intents of a query the best counts: the highest grade of a pair comes first.
    order = np.lexsort((-grade.astype(np.int64), document, query))
    query, document, grade = query[order], document[order], grade[order]
    is_first = np.ones(len(query), bool)
    is_first[1:] = (query[1:] != query[:-1]) | (document[1:] != document[:-1])
    return RelevantPairs(query[is_first], document[is_first], grade[is_first])


def mark_shown(world: World, days: Sequence[Day], pairs: RelevantPairs) -> Bool[np.ndarray, "pairs"]:
    """Returns whether any search of any of these days showed the document of each pair for its query."""
    size = len(world.documents)
    shown = []
    for day in days:
        row, position = np.nonzero(day.searches.pages.shown >= 0)
        shown.append(day.searches.query[row].astype(np.int64) * size + day.searches.pages.shown[row, position])
    return np.isin(pairs.query.astype(np.int64) * size + pairs.document, np.unique(np.concatenate(shown)))


def searched_queries(days: Sequence[Day]) -> Int[np.ndarray, "queries"]:
    """Returns the distinct queries that were searched, in ascending order."""
    return np.unique(np.concatenate([day.searches.query for day in days]))


def truth_table(world: World, days: Sequence[Day]) -> pa.Table:
    """Returns the relevant pairs of all searched queries, as data.tables.truth keeps them."""
    pairs = find_relevant(world, searched_queries(days))
    text, doc_id = pa.array(world.queries.text, pa.string()), pa.array(world.documents.doc_id, pa.string())
    return pa.table(
        {
            "query": text.take(pa.array(pairs.query)),
            "doc_id": doc_id.take(pa.array(pairs.document)),
            "grade": pa.array(pairs.grade.astype(np.float64)),
            "shown": pa.array(mark_shown(world, days, pairs)),
        }
    )
