"""The conditions of a cell: which results are superseded because the bytes that they were made from have changed."""

import dataclasses

import pytest

from launch.comparison.results.conditions import conditions_here, is_superseded

HERE = conditions_here(1.0, fingerprints={"records": "a"})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"seconds": 5.0}, False),
        ({"fingerprints": {"records": "c"}}, True),
        ({"fingerprints": {"records": "c"}, "processor": "another one"}, False),
        ({"fingerprints": {"records": "c"}, "cores": HERE.cores + 1}, False),
        ({"fingerprints": {"records": "c"}, "packages": {"jax": "0"}}, False),
    ],
)
def test_other_bytes_supersede_a_result_of_the_same_kind_of_machine(changes, expected):
    assert is_superseded(dataclasses.replace(HERE, **changes), HERE) is expected
