"""Runs that start from the weights of another run: where they begin, and what is left when they are resumed."""

import os
import shutil
import signal

import jax
import numpy as np
import pytest

from crops_jax.errors import InputError, Interrupted
from crops_jax.runs import checkpoints
from crops_jax.runs.folder import open_run
from crops_jax.runs.log import TIMING_FIELDS, read_metrics
from crops_jax.training import dual_encoder
from tests.tiny_run import CONFIG, tiny_records, use_bag_encoder

pytestmark = pytest.mark.usefixtures("fast_compilation")

STILL = {"learning_rate": 1e-30, "temperature_learning_rate": 1e-30, "weight_decay": 0.0}
"""Rates at which one step leaves float32 weights as they were, except for zeros."""
SHORT = CONFIG.replace(training={"steps": 6, "evaluate_every_steps": 0})


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    use_bag_encoder(monkeypatch)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tiny_records(tmp_path_factory.mktemp("records") / "records")


def trained(run, records, config, initial_run=None):
    given = {"config": config, "records": records, "initial_run": initial_run}
    with open_run(run, arguments={}, **given) as path:
        return dual_encoder.train(config, records_path=records, run=path, initial_run=initial_run)


@pytest.fixture(scope="module")
def warm(records, tmp_path_factory):
    run = tmp_path_factory.mktemp("warm") / "run"
    with pytest.MonkeyPatch.context() as patch:
        use_bag_encoder(patch)
        trained(run, records, SHORT.replace(training={"seed": 8}, loss={"initial_temperature": 0.5}))
    return run


def leaves(run, which="last"):
    return jax.tree_util.tree_leaves_with_path(checkpoints.restore_parameters(run, which=which))


def test_arms_on_other_records_begin_with_equal_weights_and_their_own_temperature(warm, records, tmp_path):
    config = SHORT.replace(optimizer=STILL, training={"steps": 1})
    arms = {
        "one": (records, config),
        "two": (tiny_records(tmp_path / "records", seed=1), config.replace(training={"seed": 7})),
    }
    for name, (of_arm, of_config) in arms.items():
        trained(tmp_path / name, of_arm, of_config, warm)
        for (path, found), (_, expected) in zip(leaves(tmp_path / name), leaves(warm, "best"), strict=True):
            if "log_inverse_temperature" in jax.tree_util.keystr(path):
                expected = np.float32(-np.log(0.1))
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-25)


def test_a_run_that_was_stopped_ends_the_same_without_what_it_started_from(warm, records, tmp_path, monkeypatch):
    trained(tmp_path / "whole", records, SHORT, warm)
    copy = shutil.copytree(warm, tmp_path / "warm")
    original = dual_encoder.batches

    def batches(source, config, *, start_step, **others):
        for number, batch in enumerate(original(source, config, start_step=start_step, **others)):
            if start_step + number + 1 == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(dual_encoder, "batches", batches)
        with pytest.raises(Interrupted):
            trained(tmp_path / "stopped", records, SHORT, copy)
    shutil.rmtree(copy)
    trained(tmp_path / "stopped", records, SHORT, copy)
    for (_, found), (_, expected) in zip(leaves(tmp_path / "stopped"), leaves(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(found, expected)
    untimed = [
        [{name: line[name] for name in line if name not in TIMING_FIELDS} for line in read_metrics(tmp_path / name)]
        for name in ("stopped", "whole")
    ]
    assert untimed[0] == untimed[1]
    assert [line["step"] for line in untimed[0]] == [2, 4, 6]


def test_a_checkpoint_that_does_not_fit_its_configuration_is_refused(warm, records, tmp_path):
    wider = CONFIG.replace(encoder={"width": 32})
    with pytest.raises(InputError, match=r"its checkpoint does not fit its config\.json"):
        dual_encoder.train(wider, records_path=records, run=tmp_path, initial_run=warm)
