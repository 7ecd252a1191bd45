"""The head of a Poly-encoder against a NumPy reference, a case worked by hand, and packed against plain rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from crops_jax.config import Config
from crops_jax.models.dual_encoder import random_dual_encoder
from crops_jax.models.poly_encoder import QueryCodes, poly_scores, poly_scores_of_own
from crops_jax.text.packing import PackedTexts, assign_rows, lay_out
from tests.tiny_run import CONFIG

POLY = CONFIG.replace(encoder={"query_codes": 3, "dropout": 0.0})


def softmax(values):
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def unit(vector):
    norm = np.linalg.norm(vector)
    return vector / norm if norm else vector


def reference_contexts(codes, states, present):
    """The context vectors of one query, by the first two equations of section 4.5 in float64."""
    own = np.float64(states)[present]
    if not len(own):
        return np.zeros(codes.shape)
    return np.stack([unit(softmax(own @ code) @ own) for code in np.float64(codes)])


def reference_score(contexts, document, temperature):
    """The score of one query and one document, by the last two equations."""
    cosines = np.asarray([context @ document for context in np.float64(contexts)])
    return softmax(cosines / temperature) @ cosines


def codes_of(values) -> QueryCodes:
    config = CONFIG.replace(encoder={"query_codes": len(values), "width": len(values[0])}).encoder
    module = QueryCodes(config, rngs=nnx.Rngs(0))
    module.codes[...] = jnp.asarray(values, jnp.float32)
    return module


def test_a_case_worked_by_hand():
    # A code of zeros weighs both tokens alike; (ln 3, 0) weighs the tokens by 3 : 1.
    states = jnp.asarray([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    present = jnp.asarray([[True, True, False]])
    contexts = codes_of([[0.0, 0.0], [np.log(3), 0.0]])(states, present)
    first, second = np.array([1, 1]) / np.sqrt(2), np.array([3, 1]) / np.sqrt(10)
    np.testing.assert_allclose(contexts[0], [first, second], rtol=1e-6)
    # The cosines with the document (0, 1) are 1 / sqrt 2 and 1 / sqrt 10. At the temperature that makes their
    # difference ln 2, they weigh 2/3 and 1/3.
    low, high = 10**-0.5, 2**-0.5
    scores = poly_scores(contexts, jnp.asarray([[0.0, 1.0]]), (high - low) / np.log(2))
    assert float(scores[0, 0]) == pytest.approx(2 / 3 * high + 1 / 3 * low, rel=1e-5)


def test_contexts_and_scores_equal_the_reference():
    random = np.random.default_rng(0)
    codes, states = random.normal(size=(5, 8)), random.normal(size=(4, 7, 8))
    present = random.random((4, 7)) < 0.6
    present[3] = False
    contexts = codes_of(codes)(jnp.asarray(states, jnp.float32), jnp.asarray(present))
    expected = [reference_contexts(codes, *pair) for pair in zip(states, present)]
    np.testing.assert_allclose(contexts, expected, atol=1e-5)
    documents = np.stack([unit(row) for row in random.normal(size=(4, 6, 8)).reshape(-1, 8)]).astype(np.float32)
    for temperature in (1.0, 0.01):
        scores = [[reference_score(one, document, temperature) for document in documents] for one in expected]
        found = poly_scores(contexts, jnp.asarray(documents), temperature)
        np.testing.assert_allclose(found, scores, atol=1e-5)
        own = poly_scores_of_own(contexts, jnp.asarray(documents.reshape(4, 6, 8)), temperature)
        np.testing.assert_allclose(own, [row[6 * i : 6 * i + 6] for i, row in enumerate(np.array(scores))], atol=1e-5)


def test_one_code_scores_by_the_cosine_at_any_temperature():
    contexts, document = jnp.asarray([[[0.6, 0.8]]]), jnp.asarray([[1.0, 0.0]])
    assert [float(poly_scores(contexts, document, t)[0, 0]) for t in (1.0, 0.01)] == pytest.approx([0.6, 0.6])


def test_padding_and_queries_without_tokens_have_finite_gradients():
    states, present = jnp.full((2, 3, 2), 2.0), jnp.asarray([[True, False, True], [False] * 3])

    def loss(states):
        contexts = codes_of([[0.5, -1.0]])(states, present)
        return poly_scores(contexts, jnp.asarray([[1.0, 0.0]]), 0.1).sum()

    gradient = np.asarray(jax.grad(loss)(states))
    assert np.isfinite(gradient).all()
    assert not gradient[0, 1].any()
    assert not gradient[1].any()
    assert gradient[0, 0].any()


def test_the_towers_of_a_seed_are_those_of_the_dual_encoder():
    def parameters(config: Config) -> dict:
        return nnx.to_pure_dict(nnx.state(random_dual_encoder(config, seed=4), nnx.Param))

    poly, dual = parameters(POLY), parameters(CONFIG)
    codes = poly.pop("query_codes")["codes"]
    assert codes.shape == (3, 16)
    assert 0.5 < float(codes.std()) * 4 < 1.5  # 16 ** -0.5 = 1 / 4
    assert jax.tree.all(jax.tree.map(lambda one, other: bool((one == other).all()), poly, dual))


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_packed_queries_have_the_contexts_that_they_have_alone(micro_batches):
    model = random_dual_encoder(POLY, seed=1)
    random = np.random.default_rng(1)
    texts = [random.integers(5, 40, length).astype(np.int32) for length in (3, 6, 1, 5, 4, 2, 12, 9)]
    queries, rows = 6, assign_rows([len(text) for text in texts], row_tokens=16)
    packed = PackedTexts(*(array[None] for array in lay_out(texts, rows, row_tokens=16, num_rows=4)))
    places = np.concatenate([packed.places[:, :queries], [[-1]]], axis=1)

    @nnx.jit
    def encode(model):
        states = model.packed_states(packed, tower="query", micro_batches=micro_batches)
        contexts = model.packed_contexts(states, packed._replace(places=places))
        return contexts[0], model.pooled_states(states, packed)[0], model.encode_packed(packed, tower="query")[0]

    contexts, pooled, vectors = encode(model)
    alone = np.full((queries, 6), -1, np.int32)
    for row, text in zip(alone, texts):
        row[: len(text)] = text
    np.testing.assert_allclose(contexts[:queries], model.encode_contexts(alone), atol=2e-5)
    assert not contexts[queries].any()
    np.testing.assert_allclose(pooled, vectors, atol=1e-6)
