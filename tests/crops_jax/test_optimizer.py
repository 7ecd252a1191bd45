import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.config import OptimizerConfig
from crops_jax.optimizer import decay_mask, learning_rate_schedule, make_optimizer


def rates(steps, **fields):
    schedule = learning_rate_schedule(OptimizerConfig(learning_rate=1.0, **fields), steps=steps)
    return np.array([float(schedule(step)) for step in range(steps)])


def test_schedule_rises_linearly_and_falls_as_a_cosine():
    found = rates(100, warmup_fraction=0.1, final_fraction=0.1)
    np.testing.assert_allclose(found[:10], (np.arange(10) + 1) / 11, rtol=1e-6)
    expected = 0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(90) / 90)) / 2
    np.testing.assert_allclose(found[10:], expected, rtol=1e-5)
    assert found.argmax() == 10


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.9])
def test_schedule_of_short_runs_is_positive_and_bounded(steps, warmup):
    found = rates(steps, warmup_fraction=warmup)
    assert (found > 0).all()
    assert (found <= 1).all()


def test_weight_decay_spares_biases_norms_and_temperature():
    parameters = {
        "tower": {"up": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "norm": {"scale": jnp.ones(2)}},
        "token_embedding": {"embedding": jnp.ones((3, 2))},
        "log_inverse_temperature": jnp.ones(()),
    }
    assert decay_mask(parameters) == {
        "tower": {"up": {"kernel": True, "bias": False}, "norm": {"scale": False}},
        "token_embedding": {"embedding": True},
        "log_inverse_temperature": False,
    }
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.5, weight_decay=0.1, warmup_fraction=0), steps=10)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, parameters), optimizer.init(parameters), parameters)
    assert (updates["tower"]["up"]["kernel"] == -0.05).all()
    assert updates["log_inverse_temperature"] == 0
    assert (updates["tower"]["up"]["bias"] == 0).all()


def test_first_update_is_adamw_of_the_clipped_gradient():
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0, warmup_fraction=0, clip_norm=1.0, epsilon=1e-2)
    gradients = {"kernel": jnp.array([3.0, 4.0])}
    optimizer = make_optimizer(config, steps=5)
    updates, _ = optimizer.update(gradients, optimizer.init(gradients), gradients)
    clipped = np.array([0.6, 0.8])
    np.testing.assert_allclose(updates["kernel"], -0.1 * clipped / (clipped + 1e-2), rtol=1e-5)
