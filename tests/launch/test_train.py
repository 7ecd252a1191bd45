"""launch.train as a process: killed, terminated and called again."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from crops_jax.runs import checkpoints
from crops_jax.runs.log import read_goodput, read_metrics
from tests.metadata import MetadataServer
from tests.paths import ROOT
from tests.tiny_run import tiny_records, without_times

STEPS = 60
CONFIGURATION = f"""
from tests.tiny_run import CONFIG as TINY

CONFIG = TINY.replace(
    encoder={{"dropout": DROPOUT}},
    training={{"steps": {STEPS}, "log_every_steps": 1, "evaluate_every_steps": 10, "checkpoint_every_steps": 3}},
)
"""
PATIENCE_SECONDS = 300


class Job:
    """One configuration and its records; processes share a compilation cache, so that restarts are quick."""

    def __init__(self, folder: Path, *, dropout: float, xla_flags: str = ""):
        self.folder = folder
        self.xla_flags = f"--xla_force_host_platform_device_count=1 {xla_flags}"
        self.records = tiny_records(folder / "records")
        self.config = folder / "tiny.py"
        self.config.write_text(CONFIGURATION.replace("DROPOUT", str(dropout)))

    def start(self, run: Path, *overrides: str, config: str | None = None) -> subprocess.Popen:
        command = [sys.executable, "-m", "launch.train", config or str(self.config)]
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": self.xla_flags,
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "cache"),
        }
        return subprocess.Popen(
            [*command, "--records", str(self.records), "--output", str(run), *overrides],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, run: Path, *overrides: str, config: str | None = None) -> tuple[int, str, str]:
        process = self.start(run, *overrides, config=config)
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
        return process.returncode, output, errors


def starts(run: Path) -> int:
    """How often the training loop of a run was entered."""
    goodput = run / "goodput.jsonl"
    return goodput.read_text().count('"event": "start"') if goodput.exists() else 0


def wait_for_step(process: subprocess.Popen, run: Path, step: int, *, starts_before: int) -> None:
    """Returns when the process itself has brought metrics.jsonl to a step, or has ended.

    Lines that an earlier process left are cut off before the loop is entered, which shows in goodput.jsonl.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if starts(run) > starts_before and (lines := read_metrics(run)) and lines[-1]["step"] >= step:
            return
        time.sleep(0.002)


def kill_at(job: Job, run: Path, step: int) -> None:
    before = starts(run)
    process = job.start(run)
    wait_for_step(process, run, step, starts_before=before)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert starts(run) == before + 1


def assert_same_run(run: Path, other: Path) -> None:
    for which in ("last", "best"):
        one, two = (jax.tree.leaves(checkpoints.restore_parameters(path, which=which)) for path in (run, other))
        assert len(one) == len(two) > 0
        for left, right in zip(one, two):
            np.testing.assert_array_equal(left, right)
    lines = [[without_times(line) for line in read_metrics(path)] for path in (run, other)]
    assert lines[0] == lines[1]
    assert len(lines[0]) == STEPS


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    # Compiles in half the time; the slow test runs what users run.
    return Job(tmp_path_factory.mktemp("job"), dropout=0.0, xla_flags="--xla_backend_optimization_level=0")


@pytest.fixture(scope="module")
def uninterrupted(job):
    status, output, errors = job.finish(job.folder / "uninterrupted")
    assert status == 0, errors
    return job.folder / "uninterrupted", json.loads(output.splitlines()[-1]), errors


def test_killed_once_and_resumed_equals_never_killed(job, uninterrupted):
    run = job.folder / "killed"
    kill_at(job, run, 20)
    status, output, errors = job.finish(run)
    assert status == 0, errors
    assert_same_run(run, uninterrupted[0])
    assert without_times(json.loads(output)) == {**without_times(uninterrupted[1]), "run": str(run)}


def test_the_first_line_of_the_log_and_the_outcome(uninterrupted):
    run, outcome, errors = uninterrupted
    lines = [line for line in errors.splitlines() if line.startswith("devices: ")]
    assert lines == [
        f"devices: 1 x cpu, mesh: data 1 x fsdp 1 x model 1, loss: h_infonce (dense), steps: 0 to {STEPS} of 8 queries"
    ]
    assert outcome["run"] == str(run)
    assert outcome["steps"] == STEPS
    assert outcome["best_step"] % 10 == 0
    assert outcome["checkpoint_seconds"] > 0
    assert outcome["compilation_seconds"] > 0
    told = re.search(r"the first step ended ([\d.]+) s after the start of the program; ([\d.]+) s were comp", errors)
    (first,) = [line for line in read_goodput(run) if line.get("event") == "first_step"]
    assert first["step"] == 1
    assert float(told[1]) == pytest.approx(first["since_start_seconds"], abs=0.06)
    # The process also loads JAX and the records before its first step.
    assert float(told[1]) > float(told[2]) > 0


def test_wrong_arguments_are_refused_in_one_line(job, uninterrupted):
    for overrides, message in [
        (["--optimizer.learning-rate", "0.5"], "optimizer.learning_rate: 0.003 there, 0.5 here"),
        (["--mesh.data", "3"], "mesh.data x mesh.fsdp x mesh.model = 3 x 1 x 1 needs 3 devices and 1 are here"),
    ]:
        run = uninterrupted[0] if "learning" in overrides[0] else job.folder / "refused"
        status, output, errors = job.finish(run, *overrides)
        assert status == 2
        assert message in errors
        assert "Traceback" not in errors
        assert output == ""


@pytest.mark.slow
def test_sigterm_saves_a_checkpoint_exits_3_and_resumes(job, uninterrupted):
    run = job.folder / "terminated"
    process = job.start(run)
    wait_for_step(process, run, 7, starts_before=0)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 3, errors
    assert "a checkpoint is saved; call the same command again to go on" in errors
    assert output == ""
    assert max(checkpoints.saved_steps(run / "checkpoints")) >= read_metrics(run)[-1]["step"]
    assert job.finish(run)[0] == 0
    assert_same_run(run, uninterrupted[0])


@pytest.mark.slow
def test_a_notice_of_preemption_saves_a_checkpoint_and_exits_3(job, uninterrupted, monkeypatch):
    run = job.folder / "preempted"
    with MetadataServer({"maintenance-event": "NONE", "preempted": "FALSE"}) as server:
        monkeypatch.setenv("GCE_METADATA_IP", server.address)
        process = job.start(run, "--training.steps", "1000000")
        wait_for_step(process, run, 7, starts_before=0)
        server.values["preempted"] = "TRUE"
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 3, errors
    assert "Google Cloud takes this machine away (preempted)" in errors
    assert max(checkpoints.saved_steps(run / "checkpoints")) >= read_metrics(run)[-1]["step"]


@pytest.mark.slow
def test_killed_many_times_at_random_equals_never_killed(tmp_path):
    job = Job(tmp_path, dropout=0.1)
    assert job.finish(tmp_path / "uninterrupted")[0] == 0
    chance, run = random.Random(0), tmp_path / "killed"
    for kill in range(20):
        done = max(checkpoints.saved_steps(run / "checkpoints"), default=0)
        if kill % 5 == 4:
            # Sometimes before the first step: while the process starts, restores or compiles.
            process = job.start(run)
            deadline = time.monotonic() + chance.uniform(0.5, 6.0)
            while time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        else:
            kill_at(job, run, done + chance.randint(1, 4))
    status, _, errors = job.finish(run)
    assert status == 0, errors
    assert_same_run(run, tmp_path / "uninterrupted")
