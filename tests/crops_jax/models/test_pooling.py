import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.models.pooling import pool_segments, unit_norm

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
