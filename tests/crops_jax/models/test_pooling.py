import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.models.pooling import pool, unit_norm

STATES = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
MASK = np.asarray([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]], bool)


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_pools_over_the_mask(pooling, dtype):
    states = jnp.asarray(STATES, dtype)
    found = pool(states, jnp.asarray(MASK), pooling=pooling)
    assert found.dtype == jnp.float32
    choose = {"mean": lambda rows: rows.mean(0), "first": lambda rows: rows[0], "last": lambda rows: rows[-1]}[pooling]
    for row, (state, mask) in enumerate(zip(np.asarray(states, np.float32), MASK, strict=True)):
        expected = choose(state[mask]) if mask.any() else np.zeros(3)
        np.testing.assert_allclose(found[row], expected, atol=1e-6)


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="found max"):
        pool(jnp.asarray(STATES), jnp.asarray(MASK), pooling="max")


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_padding_gets_no_gradient_and_no_nan(pooling):
    def total(states):
        return jnp.sum(unit_norm(pool(states, jnp.asarray(MASK), pooling=pooling)) * jnp.asarray(STATES[:, 0]))

    gradient = jax.grad(total)(jnp.asarray(STATES))
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[~MASK].any()


def test_unit_norm_is_torchs_normalize():
    vectors = jnp.asarray([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0]])
    np.testing.assert_allclose(unit_norm(vectors), [[0.6, 0.8], [0, 0], [1e-8, 0]], rtol=1e-6)
