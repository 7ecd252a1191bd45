"""Graded judgements as labels."""

import ibis
import pyarrow as pa

from data.perspectives.judged import labels, parse_grade_levels

GRADES = {"d0": 0.0, "d1": 0.999999, "d2": 1.0, "d3": 1.999999, "d4": 2.0, "d5": 3.0}


def found(steps):
    table = pa.table({"query": ["q"] * len(GRADES), "doc_id": list(GRADES), "grade": list(GRADES.values())})
    rows = labels(ibis.memtable(table), parse_grade_levels(steps)).to_pyarrow().to_pylist()
    assert {row["source"] for row in rows} <= {"judgements"}
    return {row["doc_id"]: row["level"] for row in rows}


def test_a_grade_has_the_level_of_the_last_step_it_reaches():
    assert found("1=3,2=4") == {"d2": 3, "d3": 3, "d4": 4, "d5": 4}
    assert found("0=0,1=1,2=4,3=5") == {"d0": 0, "d1": 0, "d2": 1, "d3": 1, "d4": 4, "d5": 5}


def test_what_lies_below_the_first_step_is_left_out():
    assert found("3.5=4") == {}
    assert found("3=4") == {"d5": 4}
