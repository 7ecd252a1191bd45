import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from crops_jax.config import OptimizerConfig
from crops_jax.models.dual_encoder import abstract_dual_encoder
from crops_jax.training.optimizer import (
    decay_mask,
    learning_rate_schedule,
    make_optimizer,
    moving_average,
    rate_multipliers,
    updates_done,
)
from tests.tiny_run import CONFIG


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


TOWER = {
    "token_embedding": {"embedding": 0.512},
    "embedding_norm": {"scale": 0.512},
    "layers": {
        0: {"attention": {"query": {"kernel": 0.64}}},
        1: {"feed_forward_norm": {"scale": 0.8}},
        2: {"feed_forward": {"down": {"bias": 1.0}}},
    },
}
QWEN = {
    "token_embedding": {"embedding": 0.64},
    "layers": {0: {"attention_norm": {"scale": 0.8}}, 1: {"attention": {"query_norm": {"scale": 1.0}}}},
    "final_norm": {"scale": 1.0},
}
MULTIPLIERS = {
    "query_tower": TOWER,
    "document_tower": QWEN,
    "pooler": {"kernel": 1.0},
    "log_inverse_temperature": 1.0,
}


def test_each_layer_has_its_multiple_of_the_learning_rate():
    parameters = jax.tree.map(lambda _: jnp.ones(2), MULTIPLIERS)
    found = rate_multipliers(parameters, layer_decay=0.8)
    assert jax.tree.structure(found) == jax.tree.structure(MULTIPLIERS)
    np.testing.assert_allclose(jax.tree.leaves(found), jax.tree.leaves(MULTIPLIERS), rtol=1e-12)
    assert set(jax.tree.leaves(rate_multipliers(parameters, layer_decay=1.0))) == {1.0}


@pytest.mark.parametrize("family", ["bert", "qwen3", "hashed"])
def test_every_tower_ends_with_the_whole_rate_and_begins_with_the_least(family):
    config = CONFIG.replace(encoder={"family": family, "layers": 3, "hash_buckets": 8, "feature_width": 4})
    parameters = nnx.to_pure_dict(nnx.state(abstract_dual_encoder(config), nnx.Param))
    tower = rate_multipliers(parameters, layer_decay=0.5)["tower"]
    assert [set(jax.tree.leaves(tower["layers"][i])) for i in range(3)] == [{0.25}, {0.5}, {1.0}]
    others = {name: set(jax.tree.leaves(part)) for name, part in tower.items() if name != "layers"}
    assert {name: rate for name, [rate] in others.items()} == {
        name: 1.0 if name in {"final_norm", "output"} else 0.125 for name in others
    }


def test_updates_with_a_rate_for_each_layer_are_those_by_hand():
    parameters = {"layers": {i: {"kernel": jnp.array([[1.0, -2.0]])} for i in range(2)}, "head": jnp.array([[0.5]])}
    gradients = jax.tree.map(lambda leaf: 0.1 * leaf + 0.03, parameters)
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.2, warmup_fraction=0, layer_decay=0.25, clip_norm=10)
    optimizer = make_optimizer(config, steps=10**6)
    state = optimizer.init(parameters)
    for _ in range(2):
        updates, state = optimizer.update(gradients, state, parameters)
    assert int(updates_done(state)) == 2
    for factor, name in ((0.25, ("layers", 0, "kernel")), (1.0, ("layers", 1, "kernel")), (1.0, ("head",))):
        found, g, p = (
            functools.reduce(lambda tree, key: tree[key], name, one) for one in (updates, gradients, parameters)
        )
        g, p = np.float64(g), np.float64(p)
        # Of a constant gradient the two moments, freed of their bias, are g and g^2.
        np.testing.assert_allclose(found, -0.1 * factor * (g / (np.abs(g) + 1e-8) + 0.2 * p), rtol=1e-5)


def test_the_temperature_alone_has_its_own_learning_rate():
    parameters = {"tower": {"up": {"kernel": jnp.ones((2, 2))}}, "log_inverse_temperature": jnp.float32(3)}
    gradients = jax.tree.map(lambda leaf: -0.1 * leaf, parameters)

    def updates_of(rate):
        config = OptimizerConfig(learning_rate=1e-3, temperature_learning_rate=rate, warmup_fraction=0.5)
        optimizer = make_optimizer(config, steps=7)
        state, found = optimizer.init(parameters), []
        for _ in range(7):
            updates, state = optimizer.update(gradients, state, parameters)
            found.append(updates)
        return found, [float(learning_rate_schedule(config, steps=7)(step)) for step in range(7)]

    (slow, schedule), (fast, _) = updates_of(1e-3), updates_of(0.5)
    for one, other, rate in zip(slow, fast, schedule, strict=True):
        assert (one["tower"]["up"]["kernel"] == other["tower"]["up"]["kernel"]).all()
        # Adam divides a constant gradient by its size, so every update is the rate of its step.
        assert float(one["log_inverse_temperature"]) == pytest.approx(rate, rel=1e-4)
        assert float(other["log_inverse_temperature"]) == pytest.approx(500 * rate, rel=1e-4)
    factors = rate_multipliers(parameters, layer_decay=0.5, temperature=7.0)
    assert factors == {"tower": {"up": {"kernel": 1.0}}, "log_inverse_temperature": 7.0}


@pytest.mark.parametrize("rate", [0.0, -1e-3, float("inf"), float("nan")])
def test_the_learning_rate_of_the_temperature_is_positive_and_finite(rate):
    with pytest.raises(ValueError, match="temperature_learning_rate must be"):
        OptimizerConfig(temperature_learning_rate=rate)


def test_moving_average_is_that_of_the_formula():
    random = np.random.default_rng(0)
    weights = random.normal(size=(40, 3))
    average, expected = {"kernel": jnp.float32(weights[0])}, np.float64(weights[0])
    for n, new in enumerate(weights[1:], start=1):
        average = moving_average(average, {"kernel": jnp.float32(new)}, jnp.int32(n), decay=0.75)
        decay = min(0.75, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * new
        np.testing.assert_allclose(average["kernel"], expected, rtol=1e-5, atol=1e-6)
    # From the 26th update on the decay is the given one, and of the initial weights nothing is left.
    recent = sum(0.25 * 0.75**age * weights[-1 - age] for age in range(14))
    np.testing.assert_allclose(average["kernel"], recent, atol=0.05)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [({"layer_decay": 0.0}, "layer_decay must lie in"), ({"layer_decay": 1.1}, "layer_decay must lie in")]
    + [({"ema_decay": 1.0}, "ema_decay must lie in"), ({"ema_decay": -0.1}, "ema_decay must lie in")],
)
def test_decays_that_make_no_sense_are_refused(fields, rule):
    with pytest.raises(ValueError, match=rule):
        OptimizerConfig(**fields)
