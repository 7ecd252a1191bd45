import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf

from crops_jax.models.pooling import dense_modules, pool_segments, through_dense, unit_norm
from tests.model_folders import small_config

STATES = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
SEGMENTS = np.asarray([[0, 0, 0, -1, -1], [0, 1, 1, 1, 2], [0, 0, 1, 1, 1], [-1] * 5], np.int32)
SEGMENT_COUNT = 4
CHOOSE = {"mean": lambda rows: rows.mean(0), "first": lambda rows: rows[0], "last": lambda rows: rows[-1]}


@pytest.mark.parametrize("pooling", CHOOSE)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_pools_each_segment(pooling, dtype):
    states = jnp.asarray(STATES, dtype)
    found = pool_segments(states, jnp.asarray(SEGMENTS), pooling=pooling, max_segments=SEGMENT_COUNT)
    assert found.dtype == jnp.float32
    assert found.shape == (4, SEGMENT_COUNT, 3)
    for row, (state, segments) in enumerate(zip(np.asarray(states, np.float32), SEGMENTS, strict=True)):
        for segment in range(SEGMENT_COUNT):
            members = state[segments == segment]
            expected = CHOOSE[pooling](members) if len(members) else np.zeros(3)
            np.testing.assert_allclose(found[row, segment], expected, atol=1e-6)


def test_the_first_and_the_last_state_are_taken_as_they_are():
    for pooling, place in (("first", 1), ("last", 3)):
        found = pool_segments(jnp.asarray(STATES), jnp.asarray(SEGMENTS), pooling=pooling, max_segments=SEGMENT_COUNT)
        np.testing.assert_array_equal(found[1, 1], STATES[1, place])


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="found max"):
        pool_segments(jnp.asarray(STATES), jnp.asarray(SEGMENTS), pooling="max", max_segments=SEGMENT_COUNT)


@pytest.mark.parametrize("pooling", CHOOSE)
def test_padding_gets_no_gradient_and_no_nan(pooling):
    def total(states):
        vectors = unit_norm(pool_segments(states, jnp.asarray(SEGMENTS), pooling=pooling, max_segments=SEGMENT_COUNT))
        return jnp.sum(vectors * jnp.asarray(STATES[:, :SEGMENT_COUNT]))

    gradient = jax.grad(total)(jnp.asarray(STATES))
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[SEGMENTS < 0].any()


def test_unit_norm_is_torchs_normalize():
    vectors = jnp.asarray([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0]])
    np.testing.assert_allclose(unit_norm(vectors), [[0.6, 0.8], [0, 0], [1e-8, 0]], rtol=1e-6)


def test_dense_modules_are_linear_layers_with_activations_and_leave_missing_texts_zero():
    definitions = {
        "identity": lambda x: x,
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
        "silu": lambda x: x / (1 + np.exp(-x)),
    }
    widths, biases = (5, 4, 6, 2, 3), (True, False, True, True, True)
    config = small_config(
        width=3, heads=1, dense_widths=widths, dense_biases=biases, dense_activations=tuple(definitions)
    ).encoder
    layers = dense_modules(config, rngs=nnx.Rngs(0))
    assert [layer.kernel.shape for layer in layers] == [(3, 5), (5, 4), (4, 6), (6, 2), (2, 3)]
    random = np.random.default_rng(1)
    for layer in layers:
        layer.kernel[...] = jnp.asarray(random.normal(size=layer.kernel.shape), jnp.float32)
        if layer.bias is not None:
            layer.bias[...] = jnp.asarray(random.normal(size=layer.bias.shape), jnp.float32)
    assert [layer.bias is not None for layer in layers] == list(biases)
    pooled = pool_segments(jnp.asarray(STATES), jnp.asarray(SEGMENTS), pooling="mean", max_segments=SEGMENT_COUNT)
    found = through_dense(pooled, jnp.asarray(SEGMENTS), layers=layers, activations=config.dense_activations)
    expected = np.asarray(pooled, np.float64)
    for layer, activation in zip(layers, definitions.values(), strict=True):
        bias = 0 if layer.bias is None else np.asarray(layer.bias[...])
        expected = activation(expected @ np.asarray(layer.kernel[...]) + bias)
    present = (SEGMENTS[:, None, :] == np.arange(SEGMENT_COUNT)[None, :, None]).any(axis=2)
    np.testing.assert_allclose(found, np.where(present[:, :, None], expected, 0), atol=1e-5)
    assert np.abs(expected[~present]).max() > 0.1
