import numpy as np
import pytest

from crops_jax.discriminator.slices import CROSS_ENCODER, LEXICAL, slices


@pytest.mark.parametrize(
    ("borders", "expected"),
    [(LEXICAL, [4245, 1217, 1798]), (CROSS_ENCODER, [5595, 786, 879])],
    ids=["lexical", "cross"],
)
def test_slices_of_known_queries(borders, expected):
    queries = [f"q{i}" for i in range(60) for _ in range(2)]
    found = slices(queries, np.array([0.0, 1.0] * 60), borders)
    assert found.apart
    assert [int((mask * np.arange(1, 121)).sum()) for mask in found[:3]] == expected
    upper = slices([f" {query.upper()}" for query in queries], np.array([0.0, 1.0] * 60), borders)
    assert all((one == other).all() for one, other in zip(upper[:3], found[:3], strict=True))


def test_every_slice_of_the_cross_encoder_has_queries_of_every_slice_of_the_lexical_discriminator():
    queries, targets = [f"q{i}" for i in range(1000) for _ in range(2)], np.array([0.0, 1.0] * 1000)
    one, other = (slices(queries, targets, borders) for borders in (CROSS_ENCODER, LEXICAL))
    assert all((a & b).any() for a in one[:3] for b in other[:3])


def test_few_queries_are_their_own_calibration_and_that_is_said():
    found = slices(["a", "a", "b"], np.array([0.0, 1.0, 1.0]), CROSS_ENCODER)
    assert not found.apart
    assert all(mask.all() for mask in found[:3])
