"""The training loop in one process: stopped in every way and called again, it ends as if nothing had happened."""

import errno
import itertools
import os
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.devices.accelerators import Accelerator
from crops_jax.errors import InputError, Interrupted, NamedFailure
from crops_jax.records import RecordSource
from crops_jax.runs import checkpoints, status
from crops_jax.runs.checkpoints import Checkpoints
from crops_jax.runs.log import TIMING_FIELDS, RunLog, read_goodput, read_metrics
from crops_jax.training import dual_encoder, flops
from tests.tiny_run import CONFIG, tiny_records, use_bag_encoder

pytestmark = pytest.mark.usefixtures("fast_compilation")


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    use_bag_encoder(monkeypatch)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tiny_records(tmp_path_factory.mktemp("records") / "records")


@pytest.fixture(scope="module")
def uninterrupted(records, tmp_path_factory):
    run = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        use_bag_encoder(patch)
        outcome = dual_encoder.train(CONFIG, records_path=records, run=run)
    return run, outcome


def untimed(run):
    return [{name: line[name] for name in line if name not in TIMING_FIELDS} for line in read_metrics(run)]


def assert_same_run(run, other):
    for which in ("last", "best"):
        one, two = (checkpoints.restore_parameters(folder, which=which) for folder in (run, other))
        assert jax.tree.structure(one) == jax.tree.structure(two)
        for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
            np.testing.assert_array_equal(left, right)
    assert untimed(run) == untimed(other)
    assert checkpoints.best_step(run) == checkpoints.best_step(other)


def stop_before(step, monkeypatch, act):
    """Calls `act` when the batch of `step` is asked for."""
    original = dual_encoder.batches

    def batches(source, config, *, start_step, **others):
        for number, batch in enumerate(original(source, config, start_step=start_step, **others)):
            if start_step + number + 1 == step:
                act()
            yield batch

    monkeypatch.setattr(dual_encoder, "batches", batches)


def test_a_run_leaves_what_the_contract_says(uninterrupted):
    run, outcome = uninterrupted
    lines = read_metrics(run)
    assert [line["step"] for line in lines] == list(range(2, 21, 2))
    for line in lines:
        assert {"loss", "temperature", "learning_rate", "examples_per_second", "grad_norm"} <= line.keys()
        assert {"label_overflow", "false_negatives_avoided", "duplicate_documents", "repeated_queries"} <= line.keys()
        assert line["loss_implementation"] == "dense"
        assert line["attention_implementation"] == "plain"
        assert "model_flops_utilization" not in line  # the peak of a CPU is not known
        assert line["padding_share"] == pytest.approx(1 - line["tokens"] / line["token_places"], abs=1e-4)
        assert sum(line[f"anchors_level_{level}"] for level in range(1, 6)) > 0
    evaluated = {line["step"]: line[dual_encoder.DEV_METRIC] for line in lines if dual_encoder.DEV_METRIC in line}
    assert sorted(evaluated) == [6, 12, 18, 20]
    best = max(evaluated, key=lambda step: (evaluated[step], -step))
    assert outcome == {"steps": 20, "best_step": best, dual_encoder.DEV_METRIC: evaluated[best]}
    assert checkpoints.saved_steps(run / "checkpoints") >= {20, best}
    assert any((run / "tensorboard").iterdir())
    start, *others = read_goodput(run)
    assert start["event"] == "start"
    line = next(line for line in others if "event" not in line)
    assert {"compute_seconds", "input_wait_seconds", "checkpoint_seconds", "compilation_seconds"} <= line.keys()


def test_a_finished_run_is_left_alone(uninterrupted, records):
    run, outcome = uninterrupted
    before = (run / "metrics.jsonl").read_bytes()
    assert dual_encoder.train(CONFIG, records_path=records, run=run) == outcome
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("step", [3, 8, 15])
def test_a_crash_leaves_no_trace(uninterrupted, records, tmp_path, monkeypatch, step):
    class Crash(Exception):
        pass

    def crash():
        raise Crash

    with monkeypatch.context() as patch:
        stop_before(step, patch, crash)
        with pytest.raises(Crash):
            dual_encoder.train(CONFIG, records_path=records, run=tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 1, "loss"')
    assert dual_encoder.train(CONFIG, records_path=records, run=tmp_path) == uninterrupted[1]
    assert_same_run(tmp_path, uninterrupted[0])


def test_a_checkpoint_by_time_leaves_no_trace(uninterrupted, records, tmp_path, monkeypatch, capfd):
    class Crash(Exception):
        pass

    def crash():
        raise Crash

    config = CONFIG.replace(training={"checkpoint_every_steps": 0, "checkpoint_every_seconds": 1e-9})
    with monkeypatch.context() as patch:
        # No step is an evaluation, a multiple of 4 or the last one.
        stop_before(6, patch, crash)
        with pytest.raises(Crash):
            dual_encoder.train(config, records_path=records, run=tmp_path)
    assert max(checkpoints.saved_steps(tmp_path / "checkpoints")) in (4, 5)
    assert dual_encoder.train(config, records_path=records, run=tmp_path) == uninterrupted[1]
    assert_same_run(tmp_path, uninterrupted[0])
    assert "checkpoints blocked the training for" in capfd.readouterr().err
    assert status.seconds_of(tmp_path, "checkpoint") > 0


def test_a_clock_that_jumps_changes_nothing(uninterrupted, records, tmp_path, monkeypatch):
    """As when a machine sets its clock in the middle of a run, a week on and two weeks back."""
    right, jumps = time.time, itertools.cycle((0.0, 604_800.0, -604_800.0))
    monkeypatch.setattr(time, "time", lambda: right() + next(jumps))
    assert dual_encoder.train(CONFIG, records_path=records, run=tmp_path) == uninterrupted[1]
    assert_same_run(tmp_path, uninterrupted[0])


def test_without_intervals_the_best_steps_and_the_last_one_are_saved(uninterrupted, records, tmp_path):
    config = CONFIG.replace(training={"checkpoint_every_steps": 0, "checkpoint_every_seconds": 0, "keep_last": 99})
    dual_encoder.train(config, records_path=records, run=tmp_path)
    saved = checkpoints.saved_steps(tmp_path / "checkpoints")
    assert {uninterrupted[1]["best_step"], 20} <= saved <= {6, 12, 18, 20}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_of_the_step_under_way(uninterrupted, records, tmp_path, monkeypatch, number):
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        stop_before(7, patch, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Interrupted, match="interrupted at step 7 of 20; a checkpoint is saved"):
            dual_encoder.train(CONFIG, records_path=records, run=tmp_path)
    assert signal.getsignal(number) is handler
    assert max(checkpoints.saved_steps(tmp_path / "checkpoints")) == 7
    dual_encoder.train(CONFIG, records_path=records, run=tmp_path)
    assert_same_run(tmp_path, uninterrupted[0])


def test_a_loss_that_is_not_finite_names_step_and_last_good_checkpoint(records, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_before(6, patch, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            dual_encoder.train(CONFIG, records_path=records, run=tmp_path)
    original = Checkpoints.restore

    def spoilt(self, step, like):
        items, progress = original(self, step, like)
        return {**items, "parameters": jax.tree.map(lambda leaf: leaf * jnp.nan, items["parameters"])}, progress

    monkeypatch.setattr(Checkpoints, "restore", spoilt)
    with pytest.raises(NamedFailure, match=r"step 7: loss is .*nan.*last good checkpoint is .*checkpoints/6"):
        dual_encoder.train(CONFIG, records_path=records, run=tmp_path)
    assert max(checkpoints.saved_steps(tmp_path / "checkpoints")) == 6


def test_parameters_that_overflow_in_an_update_are_never_saved(records, tmp_path):
    config = CONFIG.replace(
        optimizer={"learning_rate": 3e38, "warmup_fraction": 0.0, "weight_decay": 1e4},
        training={"steps": 4, "checkpoint_every_steps": 1, "evaluate_every_steps": 0},
    )
    with pytest.raises(NamedFailure, match=r"step 1: parameters are not finite .*there is no checkpoint yet"):
        dual_encoder.train(config, records_path=records, run=tmp_path)
    assert checkpoints.saved_steps(tmp_path / "checkpoints") == set()


def test_a_machine_that_does_not_fit_is_refused_before_a_run_is_made():
    with pytest.raises(InputError, match="not a multiple of the mesh's data x fsdp"):
        dual_encoder.check_machine(CONFIG.replace(mesh={"data": 8, "model": 1}, data={"queries_per_batch": 7}))
    with pytest.raises(InputError, match="implementation='pallas' cannot run on cpu"):
        dual_encoder.check_machine(CONFIG.replace(loss={"implementation": "pallas"}))
    with pytest.raises(InputError, match="use 'plain' or 'auto'"):
        dual_encoder.check_machine(CONFIG.replace(encoder={"attention": "flash", "dropout": 0.0}))


def test_a_full_disk_under_a_log_is_a_named_failure(records, tmp_path, monkeypatch):
    original = RunLog.metrics

    def metrics(self, line):
        if line["step"] >= 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl")
        original(self, line)

    monkeypatch.setattr(RunLog, "metrics", metrics)
    with pytest.raises(NamedFailure, match=r"disk is full.*last good checkpoint is .*checkpoints/4"):
        dual_encoder.train(CONFIG, records_path=records, run=tmp_path)


def test_without_a_dev_split_the_last_checkpoint_is_the_best(tmp_path):
    records = tiny_records(tmp_path / "records", dev=0)
    config = CONFIG.replace(training={"steps": 4})
    run = tmp_path / "run"
    run.mkdir()
    assert dual_encoder.train(config, records_path=records, run=run) == {"steps": 4, "best_step": 4}
    assert dual_encoder.DEV_METRIC not in read_metrics(run)[-1]


def test_the_intervals_and_the_mesh_may_change_when_a_run_goes_on(records, tmp_path, monkeypatch):
    # Dropout draws by the place in a row, and another mesh has other rows.
    config = CONFIG.replace(encoder={"dropout": 0.0})
    run, whole = tmp_path / "run", tmp_path / "whole"
    run.mkdir()
    whole.mkdir()
    dual_encoder.train(config, records_path=records, run=whole)
    with monkeypatch.context() as patch:
        stop_before(9, patch, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            dual_encoder.train(config, records_path=records, run=run)
    changed = config.replace(mesh={"data": 4, "model": 2}, training={"log_every_steps": 10, "evaluate_every_steps": 0})
    dual_encoder.train(changed, records_path=records, run=run)
    lines = {line["step"]: line["loss"] for line in read_metrics(run)}
    assert list(lines) == [2, 4, 6, 8, 10, 20]
    for line in read_metrics(whole):
        if line["step"] in lines:
            assert lines[line["step"]] == pytest.approx(line["loss"], rel=1e-5)


def test_the_first_line_says_devices_mesh_and_implementation(records, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(flops, "accelerator_of", lambda kind: Accelerator(1, 1.0, 1e9))
    dual_encoder.train(CONFIG.replace(training={"steps": 2}), records_path=records, run=tmp_path)
    [line] = read_metrics(tmp_path)
    assert 0 < line["model_flops_utilization"] < 1
    assert (
        "devices: 1 x cpu, mesh: data 1 x fsdp 1 x model 1, loss: h_infonce (dense), steps: 0 to 2"
        in capfd.readouterr().err
    )


def test_a_batch_that_the_mesh_cannot_split_is_refused(records, tmp_path):
    config = CONFIG.replace(mesh={"data": 8}, data={"queries_per_batch": 12})
    with pytest.raises(InputError, match=r"--data.queries-per-batch 12 is not a multiple of the mesh's data x fsdp, 8"):
        dual_encoder.train(config, records_path=records, run=tmp_path)


def test_steps_follow_from_epochs(records):
    source = RecordSource(records)
    assert len(source) == 22
    by_epochs = CONFIG.replace(training={"steps": 0, "epochs": 1.5})
    assert dual_encoder.total_steps(source, CONFIG) == 20
    assert dual_encoder.total_steps(source, by_epochs) == 5
