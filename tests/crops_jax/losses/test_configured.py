"""The configuration chooses the loss, in a train step over several devices, and its state outlives a checkpoint."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.config import LossConfig, MeshConfig
from crops_jax.config.stored import differing_fields
from crops_jax.devices import sharding
from crops_jax.losses import (
    LossOptions,
    Split,
    distillation_kl,
    h_infonce,
    infonce,
    margin_mse,
    multi_positive_infonce,
    rince,
    softmax_cross_entropy,
)
from crops_jax.losses.arguments import LossInputs
from crops_jax.losses.configured import configured_loss
from crops_jax.runs.checkpoints import Checkpoints, Progress
from crops_jax.training.state import restore_state, save_state
from crops_jax.training.step import device_batch, make_train_step
from tests.crops_jax.losses.test_h_infonce import random_case, sparse
from tests.crops_jax.training.test_step import PLAIN, bag, batch_of, first_moments
from tests.tiny_run import state_of

FUNCTIONS = {
    "h_infonce": h_infonce,
    "infonce": infonce,
    "multi_positive_infonce": multi_positive_infonce,
    "softmax_cross_entropy": softmax_cross_entropy,
}


def arrays_of(seed=1):
    q, d, matrix, weights, mask = random_case(seed)
    given = {"query_weights": jnp.asarray(weights), "doc_mask": jnp.asarray(mask)}
    return (jnp.asarray(q), jnp.asarray(d), sparse(matrix)), given


def configured(config):
    """The configured loss, its counters; compiled whole, as in a train step."""
    arrays, given = arrays_of()
    split = Split(sharding.make_mesh(MeshConfig(data=1)))

    def run():
        temperature = jnp.float32(0.1)
        return configured_loss(config, LossInputs(*arrays, **given), temperature=temperature, split=split)

    found = jax.jit(run)()
    return float(found.loss), found.counters


def value(function, **arguments):
    arrays, given = arrays_of()
    return pytest.approx(float(jax.jit(lambda: function(*arrays, **given, **arguments))()), rel=1e-6)


def test_the_name_chooses_the_loss():
    values = []
    for name, function in FUNCTIONS.items():
        found, counters = configured(LossConfig(name=name))
        assert found == value(function, temperature=0.1)
        assert counters == {}
        values.append(found)
    factors = (2.0, 1.8, 1.6, 1.4, 1.2)
    found, _ = configured(LossConfig(name="rince", rince_form="in", rince_temperature_factors=factors))
    assert found == value(rince, temperatures=0.1 * jnp.asarray(factors), form="in")
    assert len({*values, found}) == 5


@pytest.mark.parametrize(("form", "function"), [("kl", distillation_kl), ("margin_mse", margin_mse)])
def test_distillation_is_added_with_its_weight(form, function):
    arrays, given = arrays_of()
    scores = np.random.default_rng(0).uniform(size=arrays[2].level.shape).astype(np.float32)
    scores[scores < 0.2] = np.nan
    split = Split(sharding.make_mesh(MeshConfig(data=1)))

    def run(**fields):
        inputs = LossInputs(*arrays, **given, teacher_scores=jnp.asarray(scores))
        config = LossConfig(**fields)
        return configured_loss(config, inputs, temperature=jnp.float32(0.1), split=split)

    distilled = {"distillation": form, "distillation_weight": 0.3, "teacher_temperature": 2.0}
    found, plain, both, pairs, ranknet = jax.jit(
        lambda: (
            run(**distilled, level_weights=(1.0, 1.0, 1.0, 1.0, 2.0)),
            run(level_weights=(1.0, 1.0, 1.0, 1.0, 2.0)),
            run(**distilled, matryoshka_dims=(3,)),
            run(**distilled, name="ranknet"),
            run(name="ranknet"),
        )
    )()
    assert plain.distillation is None
    alone = value(function, teacher_scores=jnp.asarray(scores), temperature=0.1, teacher_temperature=2.0)
    assert float(found.distillation) == alone
    assert float(found.loss) == pytest.approx(float(plain.loss) + 0.3 * float(found.distillation), rel=1e-6)
    assert float(pairs.distillation) == alone
    assert float(pairs.loss) == pytest.approx(float(ranknet.loss) + 0.3 * float(pairs.distillation), rel=1e-6)
    (q, d, labels), _ = arrays_of()
    shorter = [x[:, :3] / jnp.linalg.norm(x[:, :3], axis=1, keepdims=True) for x in (q, d)]
    short = function(*shorter, labels, jnp.asarray(scores), temperature=0.1, teacher_temperature=2.0, **given)
    assert float(both.distillation) == pytest.approx((float(found.distillation) + float(short)) / 2, rel=1e-5)


def test_options_and_their_counter():
    weights = (1.0, 1.0, 1.0, 2.0, 3.0)
    config = LossConfig(normalization="queries", level_weights=weights, ignore_margin=0.5)
    found, counters = configured(config)
    options = LossOptions(normalization="queries", level_weights=weights, ignore_margin=0.5)
    assert found == value(h_infonce, temperature=0.1, options=options)
    (q, d, _), given = arrays_of()
    scores, matrix = np.asarray(q) @ np.asarray(d).T, random_case(1)[2]
    ignored = 0
    for row in np.flatnonzero(np.asarray(given["query_weights"]) > 0):
        real = np.asarray(given["doc_mask"])
        positives = scores[row][real & (matrix[row] >= 4)]
        if positives.size:
            ignored += int((scores[row][real & (matrix[row] == 0)] >= positives.max() - 0.5).sum())
    assert int(counters["ignored_by_margin"]) == ignored > 0


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"level_weights": (1.0, -1.0, 1.0, 1.0, 1.0)}, "level_weights must be 5 finite numbers >= 0"),
        ({"rince_temperature_factors": (1.0, 0.0, 1.0, 1.0, 1.0)}, "rince_temperature_factors must be 5"),
        ({"name": "softmax_cross_entropy", "level_weights": (1.0, 1.0, 1.0, 1.0, 2.0)}, "level_weights must be 1"),
        ({"ignore_margin": float("inf")}, "ignore_margin must be finite or None"),
        ({"log_q_decay": 0.0}, "log_q_decay must lie in"),
        ({"log_q_buckets": 0}, "log_q_buckets must be positive"),
        ({"distillation_weight": 0.0}, "distillation_weight must be positive and finite"),
        ({"teacher_temperature": float("inf")}, "teacher_temperature must be positive and finite"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(fields, rule):
    with pytest.raises(ValueError, match=rule):
        LossConfig(**fields)


def test_a_configuration_read_back_does_not_differ():
    stored = json.loads(json.dumps(dataclasses.asdict(PLAIN)))
    assert differing_fields(stored, PLAIN) == []
    changed = PLAIN.replace(loss={"level_weights": (1.0, 1.0, 1.0, 1.0, 2.0)})
    assert [line.split(":")[0] for line in differing_fields(stored, changed)] == ["loss.level_weights"]


CORRECTED = PLAIN.replace(
    loss={"implementation": "streaming", "log_q_correction": True, "log_q_buckets": 64, "ignore_margin": 0.05}
)


def steps_of(config, mesh_config, count=2):
    mesh = sharding.make_mesh(mesh_config)
    model = bag(config)
    step = make_train_step(model, config, steps=10, mesh=mesh)
    state = state_of(model, config, steps=10, mesh=mesh)
    for number in range(count):
        state, metrics = step(state, device_batch(batch_of(number, groups=sharding.num_groups(mesh)), mesh))
    return state, metrics, step, mesh


@pytest.mark.slow
def test_a_train_step_with_every_option_is_the_same_on_eight_devices_in_a_ring():
    one, one_metrics, *_ = steps_of(CORRECTED, MeshConfig(data=1))
    ring, ring_metrics, *_ = steps_of(CORRECTED, MeshConfig(data=8, documents="ring"))
    assert float(ring_metrics.loss) == pytest.approx(float(one_metrics.loss), rel=1e-5)
    for name in ("log_q_first_seen", "ignored_by_margin"):
        assert int(ring_metrics.counters[name]) == int(one_metrics.counters[name])
    assert int(one_metrics.counters["log_q_first_seen"]) > 0
    moments, others = first_moments(one), first_moments(ring)
    largest = max(np.abs(moment).max() for moment in moments.values())
    assert max(np.abs(moments[name] - others[name]).max() for name in moments) <= 1e-5 * largest
    assert one.document_intervals.last_step.max() == 2
    assert all((a == b).all() for a, b in zip(jax.device_get(one.document_intervals), ring.document_intervals))


def test_intervals_outlive_a_checkpoint(tmp_path):
    mesh = sharding.make_mesh(MeshConfig(data=1))
    like = state_of(bag(CORRECTED), CORRECTED, steps=10, mesh=mesh)
    assert state_of(bag(PLAIN), PLAIN, steps=10, mesh=mesh).document_intervals is None
    seen = jax.tree.map(lambda zeros: zeros + jnp.arange(64, dtype=zeros.dtype), like.document_intervals)
    state = like._replace(step=like.step + 2, document_intervals=seen)
    checkpoints = Checkpoints(tmp_path, CORRECTED, keep_last=1)
    save_state(checkpoints, state, Progress())
    checkpoints.wait()
    restored, _ = restore_state(checkpoints, 2, like, mesh)
    checkpoints.close()
    for one, other in zip(state.document_intervals, restored.document_intervals, strict=True):
        assert (one == other).all()
