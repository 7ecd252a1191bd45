"""Early stopping: a run ends at the evaluation at which the rule says so, stays ended, and equals the whole run."""

import hashlib
import os
import signal

import jax
import numpy as np
import pytest

from crops_jax.config.stored import CONFIG as CONFIG_FILE
from crops_jax.config.stored import write_config
from crops_jax.errors import InputError
from crops_jax.runs import checkpoints
from crops_jax.runs.log import read_metrics
from crops_jax.runs.status import run_status
from crops_jax.training import dual_encoder, loop
from tests.crops_jax.training.test_dual_encoder import assert_same_run, stop_before, untimed
from tests.tiny_run import CONFIG, tiny_records, use_bag_encoder

pytestmark = pytest.mark.usefixtures("fast_compilation")

WHOLE = CONFIG.replace(training={"evaluate_every_steps": 2, "checkpoint_every_steps": 5})
# The dev metric after the steps 2, 4, ... 20, and by hand: patience -> the last step and the best one.
METRICS = [0.1, 0.3, 0.2, 0.3, 0.4, 0.4, 0.2, 0.1, 0.9, 0.9]
ENDS = {1: (6, 4), 3: (16, 10), 4: (20, 18)}


def key(parameters):
    leaves = jax.tree.leaves(parameters)
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tiny_records(tmp_path_factory.mktemp("records") / "records")


@pytest.fixture(scope="module")
def whole(records, tmp_path_factory):
    """A run of all steps, and the keys of the parameters that it evaluated."""
    run, keys = tmp_path_factory.mktemp("whole"), []
    with pytest.MonkeyPatch.context() as patch:
        use_bag_encoder(patch)
        use_metric(patch, lambda parameters: METRICS[len(keys.append(key(parameters)) or keys) - 1])
        dual_encoder.train(WHOLE, records_path=records, run=run)
    assert len(set(keys)) == len(METRICS)
    return run, keys


def use_metric(patch, measure):
    """Makes `measure`, a function of parameters, the dev metric."""

    class DevRecall:
        def __init__(self, *_, **__):
            pass

        def __len__(self):
            return 1

        def __call__(self, parameters):
            return measure(parameters)

    patch.setattr(dual_encoder, "DevRecall", DevRecall)


@pytest.fixture(autouse=True)
def small_model(monkeypatch, whole):
    """The metric is a function of the parameters, so a resumed run finds the same one."""
    use_bag_encoder(monkeypatch)
    use_metric(monkeypatch, lambda parameters: METRICS[whole[1].index(key(parameters))])


def config_of(patience):
    return WHOLE.replace(training={"early_stopping_evaluations": patience})


@pytest.fixture(scope="module")
def stopped(whole, records, tmp_path_factory):
    run = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        use_bag_encoder(patch)
        use_metric(patch, lambda parameters: METRICS[whole[1].index(key(parameters))])
        return run, dual_encoder.train(config_of(3), records_path=records, run=run)


@pytest.mark.parametrize("patience", [1, 4])
def test_a_run_ends_after_so_many_evaluations_without_a_better_metric(whole, records, tmp_path, patience):
    last, best = ENDS[patience]
    outcome = dual_encoder.train(config_of(patience), records_path=records, run=tmp_path)
    early = {"stopped_early": True} if last < 20 else {}
    assert outcome == {"steps": last, "best_step": best, dual_encoder.DEV_METRIC: METRICS[best // 2 - 1], **early}
    # What was done is what the whole run did, the learning rate included.
    assert untimed(tmp_path) == [line for line in untimed(whole[0]) if line["step"] <= last]
    assert checkpoints.saved_steps(tmp_path / "checkpoints") >= {last, best}
    assert checkpoints.best_step(tmp_path) == best


def test_a_run_that_stopped_early_is_left_alone(stopped, records, capfd):
    run, outcome = stopped
    assert outcome == {"steps": 16, "best_step": 10, dual_encoder.DEV_METRIC: 0.4, "stopped_early": True}
    before = {file.name: file.read_bytes() for file in run.glob("*.jsonl")}
    assert dual_encoder.train(config_of(3), records_path=records, run=run) == outcome
    assert {file.name: file.read_bytes() for file in run.glob("*.jsonl")} == before
    assert "is finished: 16 steps" in capfd.readouterr().err


@pytest.mark.parametrize("step", [8, 16])
def test_a_run_that_was_killed_stops_where_it_would_have_stopped(stopped, records, tmp_path, monkeypatch, step):
    class Killed(Exception):
        pass

    def kill():
        raise Killed

    with monkeypatch.context() as patch:
        stop_before(step, patch, kill)
        with pytest.raises(Killed):
            dual_encoder.train(config_of(3), records_path=records, run=tmp_path)
    assert dual_encoder.train(config_of(3), records_path=records, run=tmp_path) == stopped[1]
    assert_same_run(tmp_path, stopped[0])


def test_a_run_that_was_killed_between_the_last_evaluation_and_its_checkpoint_stops_there_too(
    stopped, records, tmp_path, monkeypatch
):
    class Killed(Exception):
        pass

    original = loop.save_state

    def save_state(saved, state, progress):
        if int(state.step) == 16:
            raise Killed
        original(saved, state, progress)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_state", save_state)
        with pytest.raises(Killed):
            dual_encoder.train(config_of(3), records_path=records, run=tmp_path)
    assert max(checkpoints.saved_steps(tmp_path / "checkpoints")) == 15
    assert dual_encoder.train(config_of(3), records_path=records, run=tmp_path) == stopped[1]
    assert_same_run(tmp_path, stopped[0])


def test_a_signal_during_the_last_step_finds_the_run_finished(stopped, records, tmp_path, monkeypatch):
    stop_before(16, monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert dual_encoder.train(config_of(3), records_path=records, run=tmp_path) == stopped[1]


def test_the_status_says_why_a_run_ended(stopped, whole, records, tmp_path, monkeypatch):
    for run, config in ((stopped[0], config_of(3)), (whole[0], WHOLE), (tmp_path, config_of(3))):
        write_config(run / CONFIG_FILE, config)
    status = run_status(stopped[0])
    assert (status["step"], status["steps"], status["finished"], status["seconds_left"]) == (16, 20, True, 0)
    assert status["ended"] == "early stopping: 3 evaluations since step 10 were not better than 0.4000"
    assert run_status(whole[0])["ended"] == "all steps are done"

    def kill():
        raise KeyboardInterrupt

    stop_before(15, monkeypatch, kill)
    with pytest.raises(KeyboardInterrupt):
        dual_encoder.train(config_of(3), records_path=records, run=tmp_path)
    status = run_status(tmp_path)
    assert (status["ended"], status["finished"]) == (None, False)


def test_without_a_metric_to_watch_early_stopping_is_refused(records, tmp_path, monkeypatch):
    monkeypatch.setattr(dual_encoder.DevRecall, "__len__", lambda _: 0)
    with pytest.raises(InputError, match="no dev metric to watch"):
        dual_encoder.train(config_of(3), records_path=records, run=tmp_path)
    assert read_metrics(tmp_path) == []
    for wrong in ({"evaluate_every_steps": 0}, {"early_stopping_evaluations": -1}):
        with pytest.raises(ValueError, match="early_stopping_evaluations"):
            config_of(3).replace(training=wrong)
