"""launch.train in several processes: one run whichever processes carry it, whichever of them dies."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from crops_jax.runs import checkpoints
from crops_jax.runs.log import read_metrics
from tests import clusters
from tests.tiny_run import elastic_configuration, tiny_records, without_times

STEPS = 15
CONFIGURATION = elastic_configuration(steps=STEPS, evaluate_every_steps=6, checkpoint_every_steps=5)
# The second process waits forever for the batch of its fifth step.
HANGING = """
import os
import threading

from crops_jax.training import dual_encoder

if os.environ["JAX_PROCESS_ID"] == "1":
    batches = dual_encoder.batches

    def hanging(*arguments, **others):
        for number, batch in enumerate(batches(*arguments, **others)):
            if number == 4:
                threading.Event().wait()
            yield batch

    dual_encoder.batches = hanging
"""
pytestmark = pytest.mark.slow


class Job:
    """One configuration and its records; all processes share a compilation cache."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config = folder / "tiny.py"
        self.config.write_text(CONFIGURATION)
        self.records = tiny_records(folder / "records", all_documents=True)

    def start(self, run: Path, processes: int, devices: int, **options) -> list[subprocess.Popen]:
        command = ["launch.train", str(self.config), "--records", str(self.records), "--output", str(run)]
        environment = {"JAX_COMPILATION_CACHE_DIR": str(self.folder / "cache")}
        return clusters.start(command, processes=processes, devices=devices, environment=environment, **options)

    def finish(self, run: Path, processes: int, devices: int, **options) -> list[clusters.Ended]:
        return clusters.finish(self.start(run, processes, devices, **options))


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return Job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def uninterrupted(job):
    """Outcome and run of 2 processes x 4 devices."""
    first, second = job.finish(job.folder / "uninterrupted", 2, 4)
    assert (first.status, second.status) == (0, 0), first.errors + second.errors
    assert second.output == ""
    assert "step/s" not in second.errors
    return said_by(first), job.folder / "uninterrupted"


def when_at_step(started: list[subprocess.Popen], run: Path, step: int, act: Callable[[], None]) -> None:
    """Acts as soon as metrics.jsonl has come to a step; the processes must be running then."""
    before = starts(run)
    deadline = time.monotonic() + clusters.PATIENCE_SECONDS
    while time.monotonic() < deadline and all(process.poll() is None for process in started):
        if starts(run) > before and (lines := read_metrics(run)) and lines[-1]["step"] >= step:
            act()
            return
        time.sleep(0.002)
    raise AssertionError([ended.errors for ended in clusters.finish(started)])


def starts(run: Path) -> int:
    goodput = run / "goodput.jsonl"
    return goodput.read_text().count('"event": "start"') if goodput.exists() else 0


def said_by(ended: clusters.Ended) -> dict:
    """The outcome, without what the clock decides."""
    return without_times(json.loads(ended.output))


def untimed(run: Path) -> list[dict]:
    return [without_times(line) for line in read_metrics(run)]


def leaves(run: Path) -> list[np.ndarray]:
    return jax.tree.leaves(checkpoints.restore_parameters(run, which="last"))


def assert_alike(run: Path, other: Path, *, loss: float, parameters: float) -> None:
    """Same samples in the same order, and numbers as close as asked for."""
    lines = [read_metrics(path) for path in (run, other)]
    assert [line["step"] for line in lines[0]] == list(range(1, STEPS + 1))
    for name in ("step", "samples_checksum", "tokens", "anchors_level_4"):
        assert [line[name] for line in lines[0]] == [line[name] for line in lines[1]]
    np.testing.assert_allclose(*([line["loss"] for line in part] for part in lines), rtol=loss, atol=0)
    for one, two in zip(leaves(run), leaves(other), strict=True):
        np.testing.assert_allclose(one, two, atol=parameters, rtol=0)


def test_two_processes_of_four_devices_learn_what_one_of_eight_does(job, uninterrupted):
    outcome, run = uninterrupted
    (ended,) = job.finish(job.folder / "one", 1, 8)
    assert ended.status == 0, ended.errors
    assert said_by(ended) == outcome | {"run": str(job.folder / "one")}
    assert_alike(run, job.folder / "one", loss=1e-6, parameters=1e-5)


def test_two_processes_mine_the_negatives_that_one_mines_also_after_a_kill(job):
    flags = ["--negatives.refresh-every-steps", "4", "--negatives.warmup-steps", "3", "--data.positives-per-query", "1"]
    flags += ["--negatives.sampler", "trisampler", "--negatives.top", "9"]
    (ended,) = job.finish(job.folder / "mined by one", 1, 8, extra={0: flags})
    assert ended.status == 0, ended.errors
    run, both = job.folder / "mined by two", {0: flags, 1: flags}
    started = job.start(run, 2, 4, extra=both)
    when_at_step(started, run, 9, lambda: [process.kill() for process in started])
    clusters.finish(started)
    first, second = job.finish(run, 2, 4, extra=both)
    assert (first.status, second.status) == (0, 0), first.errors + second.errors
    assert said_by(first) == said_by(ended) | {"run": str(run)}
    assert_alike(run, job.folder / "mined by one", loss=1e-5, parameters=1e-5)
    staleness = [line.get("negatives_staleness_steps") for line in read_metrics(run)]
    assert staleness == [None] * 3 + [0, 1, 2, 3] * 3


def test_one_run_carried_by_two_then_one_then_four_processes(job, uninterrupted):
    """Each part is ended by a SIGTERM to one process, which stops all of them after the same step."""
    run = job.folder / "elastic"
    for processes, devices, told, step in ((2, 4, 1, 4), (1, 8, 0, 9)):
        started = job.start(run, processes, devices)
        when_at_step(started, run, step, lambda: started[told].send_signal(signal.SIGTERM))  # noqa: B023
        ended = clusters.finish(started)
        assert [one.status for one in ended] == [3] * processes, ended
        assert "a checkpoint is saved; call the same command again to go on" in ended[0].errors
        assert ended[0].output == ""
        stopped = max(checkpoints.saved_steps(run / "checkpoints"))
        assert step <= read_metrics(run)[-1]["step"] <= stopped < STEPS
    ended = job.finish(run, 4, 2)
    assert [one.status for one in ended] == [0] * 4, ended
    assert said_by(ended[0]) == uninterrupted[0] | {"run": str(run)}
    assert_alike(run, uninterrupted[1], loss=1e-5, parameters=1e-5)


def test_killed_processes_leave_no_trace(job, uninterrupted):
    """First one is killed, and the other ends by itself; then both are."""
    run = job.folder / "killed"
    started = job.start(run, 2, 4)
    when_at_step(started, run, 7, started[1].kill)
    first, second = clusters.finish(started)
    assert second.status == -signal.SIGKILL
    # 4 where an exchange broke, which is said once. Where none did, JAX's client kills the process when heartbeats are
    # missed, and prints what it likes; a checkpoint's thread that waited for the other process may have its say too.
    assert first.status in (4, -signal.SIGABRT), first.errors
    if first.status == 4:
        assert "another process of the cluster is gone" in first.errors
        assert "Traceback" not in first.errors
    assert first.output == ""
    started = job.start(run, 2, 4)
    when_at_step(started, run, 10, lambda: [process.kill() for process in started])
    clusters.finish(started)
    first, second = job.finish(run, 2, 4)
    assert (first.status, second.status) == (0, 0), first.errors + second.errors
    assert said_by(first) == uninterrupted[0] | {"run": str(run)}
    assert untimed(run) == untimed(uninterrupted[1])
    for one, two in zip(leaves(run), leaves(uninterrupted[1]), strict=True):
        np.testing.assert_array_equal(one, two)


def test_checkpoints_by_the_clock_of_the_first_process_are_saved_by_both(job, uninterrupted):
    run, by_time = job.folder / "by time", ["--training.checkpoint-every-steps", "0"]
    by_time += ["--training.checkpoint-every-seconds", "1e-6", "--training.keep-last", "99"]
    first, second = job.finish(run, 2, 4, extra={0: by_time, 1: by_time})
    assert (first.status, second.status) == (0, 0), first.errors + second.errors
    assert said_by(first) == uninterrupted[0] | {"run": str(run)}
    assert untimed(run) == untimed(uninterrupted[1])
    # Of each two steps one at least; by their number it would be the best ones and the last one.
    assert len(checkpoints.saved_steps(run / "checkpoints")) >= STEPS // 2


def test_when_one_hangs_all_end_and_leave_their_stacks(job, uninterrupted):
    config, run = job.folder / "hanging.py", job.folder / "hanging"
    config.write_text(CONFIGURATION + HANGING)
    command = ["launch.train", str(config), "--records", str(job.records), "--output", str(run)]
    environment = {"JAX_COMPILATION_CACHE_DIR": str(job.folder / "cache")}
    limit = ["--training.hang-seconds", "15"]
    ended = clusters.run([*command, *limit], processes=2, devices=4, environment=environment)
    assert [one.status for one in ended] == [4, 4], ended
    assert "no progress for" in ended[0].errors
    stacks = (run / "hang-1.txt").read_text()
    assert stacks.startswith("process 1 of 2, stage input wait\n")
    assert "in hanging" in stacks
    assert max(checkpoints.saved_steps(run / "checkpoints"), default=0) < 5


def test_what_is_wrong_is_said_once_and_ends_all(job, uninterrupted):
    _, run = uninterrupted
    for target, extra, message in [
        (run, {0: ["--loss.initial-temperature", "0.2"], 1: ["--loss.initial-temperature", "0.2"]}, "there, 0.2 here"),
        (job.folder / "new", {1: ["--training.log-every-steps", "7"]}, "training.log_every_steps: 7, but 1 in proc"),
    ]:
        ended = job.finish(target, 2, 4, extra=extra)
        assert [one.status for one in ended] == [2, 2], ended
        assert [message in one.errors for one in ended] == [True, False]
        assert not any("Traceback" in one.errors or one.output for one in ended)
    assert not (job.folder / "new").exists()


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_whose_others_never_come_ends_with_status_4(index, job, tmp_path):
    variables = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{clusters.free_port()}"}
    variables |= {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(index)}
    own = {0: variables}
    extra = {0: ["--cluster.initialisation-seconds", "1"]}
    (ended,) = job.finish(tmp_path / "run", 1, 1, own_environment=own, extra=extra)
    assert ended.status == 4, ended.errors
    assert ended.errors.count("error: ") == 1
    assert "--cluster.initialisation-seconds" in ended.errors


def test_a_signal_is_answered_while_processes_wait_for_one_another(job, tmp_path):
    port = clusters.free_port()
    variables = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    started = job.start(tmp_path / "run", 1, 1, own_environment={0: variables})
    while started[0].poll() is None and not is_taken(port):
        time.sleep(0.05)
    started[0].send_signal(signal.SIGTERM)
    (ended,) = clusters.finish(started)
    assert ended.status == 3, ended.errors
    assert "Traceback" not in ended.errors


def is_taken(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_second_program_with_the_port_of_the_first_does_not_end_it(job, tmp_path):
    """Its process 1 would have joined the service of the first program, whose processes then ended with SIGABRT."""
    address, long = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{clusters.free_port()}"}, ["--training.steps", "100000"]
    both = {"own_environment": {0: address, 1: address}}
    first = job.start(tmp_path / "first", 2, 2, **both, extra={0: long, 1: long})
    while all(process.poll() is None for process in first) and not (tmp_path / "first" / "metrics.jsonl").exists():
        time.sleep(0.05)
    soon = ["--cluster.initialisation-seconds", "3"]
    second = job.finish(tmp_path / "second", 2, 2, **both, extra={0: soon, 1: soon})
    assert [ended.status for ended in second] == [2, 4], second
    assert "process 0 cannot listen at [::]:" in second[0].errors
    assert "another program answers there" in second[1].errors
    for process in first:
        process.send_signal(signal.SIGTERM)
    assert [ended.status for ended in clusters.finish(first)] == [3, 3]
