"""Which runs are opened as encoders with one vector of a query, and which as Poly-encoders."""

import jax
import numpy as np
import pytest
from flax import nnx

from crops_jax.errors import InputError
from crops_jax.models.dual_encoder import random_dual_encoder
from crops_jax.pretrained.exporting import export_obstacle
from crops_jax.runs.encoder import open_encoder, open_poly_encoder
from tests.crops_jax.models.test_poly_encoder import POLY
from tests.crops_jax.runs.test_initial_run import opened, save
from tests.tiny_run import CONFIG, tiny_records


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The runs of a Poly-encoder and of a dual encoder, whose weights are those of seed 2."""
    folder = tmp_path_factory.mktemp("runs")
    records = tiny_records(folder / "records")
    for name, config in (("poly", POLY), ("dual", CONFIG)):
        save(opened(folder / name, records, config=config), config, [2], best=2)
    return folder


def test_a_poly_encoder_is_no_encoder_of_one_vector(runs):
    with pytest.raises(InputError, match=r"a query has 3 vectors.*--rerank-by .*poly.*--encoder.query-codes 0"):
        open_encoder(runs / "poly")
    with pytest.raises(InputError, match=r"is a dual encoder.*--encoder.query-codes 64"):
        open_poly_encoder(runs / "dual")
    with pytest.raises(InputError, match="is no run"):
        open_poly_encoder(runs / "records" / "tokenizer")
    assert "cannot be exported" in str(export_obstacle(POLY.encoder, runs / "records" / "tokenizer"))


def test_contexts_are_those_of_the_model_and_the_temperature_is_that_of_the_run(runs):
    encoder = open_poly_encoder(runs / "poly")
    queries = [" ".join(f"w{number % 30 + word}" for word in range(1 + number % 5)) for number in range(70)]
    found = encoder.contexts(queries)
    tokens = np.full((len(queries), 6), -1, np.int32)
    for row, query in zip(tokens, queries):
        row[: len(query.split())] = [5 + int(word[1:]) for word in query.split()]
    graph, state = nnx.split(random_dual_encoder(POLY, seed=2))
    expected = jax.jit(lambda state: nnx.merge(graph, state).encode_contexts(tokens))(state)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert encoder.temperature == pytest.approx(0.1)
