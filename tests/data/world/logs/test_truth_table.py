import dataclasses

import numpy as np
import pytest

from data.simulate import serve_days
from data.world.constants import WorldConstants
from data.world.engine import present_engine
from data.world.logs.truth_table import find_relevant, truth_table
from data.world.world import draw_world

SMALL = WorldConstants(documents=400, queries=90, users=60, days=2, topics=10)


@pytest.mark.parametrize("entities", [1, 3])
def test_relevant_pairs_are_those_of_the_grades_of_all_documents(entities):
    world = draw_world(dataclasses.replace(SMALL, entities_per_topic=entities), seed=0)
    queries = np.arange(1, 90, 2)
    grades = world.query_grades(queries)
    row, document = np.nonzero(grades >= 2)
    pairs = find_relevant(world, queries)
    assert len(row) > 100
    np.testing.assert_array_equal(pairs.query, queries[row])
    np.testing.assert_array_equal(pairs.document, document)
    np.testing.assert_array_equal(pairs.grade, grades[row, document])
    assert not len(find_relevant(world, np.empty(0, int)).query)


def test_the_table_holds_every_relevant_pair_of_a_searched_query_and_whether_it_was_shown():
    world = draw_world(SMALL, seed=0)
    days = serve_days(world, present_engine(world)).days
    found = {(row["query"], row["doc_id"]): row for row in truth_table(world, days).to_pylist()}
    shown = {
        (int(query), int(document))
        for day in days
        for query, page in zip(day.searches.query, day.searches.pages.shown, strict=True)
        for document in page
    }
    searched = sorted({query for query, _ in shown})
    expected = {}
    for query, grades in zip(searched, world.query_grades(np.array(searched)), strict=True):
        for document in np.flatnonzero(grades >= 2):
            key = (world.queries.text[query], world.documents.doc_id[document])
            expected[key] = (float(grades[document]), (query, int(document)) in shown)
    assert {key: (row["grade"], row["shown"]) for key, row in found.items()} == expected
    assert {row["shown"] for row in found.values()} == {True, False}
