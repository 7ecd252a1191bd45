"""launch.train with RUN in a bucket: processes that share no disk are killed, and other programs read the run."""

import io
import json
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pytest

from crops_jax.devices import sharding
from crops_jax.devices.processes import Processes
from crops_jax.runs import checkpoints
from crops_jax.runs.folder import open_run
from crops_jax.runs.log import read_metrics
from crops_jax.storage.inputs import local_copy
from crops_jax.storage.marker import MARKER
from crops_jax.storage.objects.store import ObjectStore
from crops_jax.storage.remote import run as remote_run
from crops_jax.training import dual_encoder
from crops_jax.training.state import initial_state, save_state
from data.inspect import inspect
from data.tables import write_table
from launch.embed import embed
from launch.evaluate import evaluate
from launch.export import export
from launch.search import search
from launch.status import status
from launch.train import train
from tests import clusters
from tests.crops_jax.storage.test_staging import call, small_logs
from tests.tiny_run import CONFIG as TINY
from tests.tiny_run import elastic_configuration, tiny_records, use_bag_encoder, without_times

STEPS = 9
CONFIGURATION = elastic_configuration(steps=STEPS, evaluate_every_steps=6, checkpoint_every_steps=3)
# Each process trains a model that compiles several times faster.
SMALL = """
import pytest

from tests.tiny_run import use_bag_encoder

use_bag_encoder(pytest.MonkeyPatch())
"""
URL = "s3://bucket/runs/one"


class Job:
    """One configuration and its records. Each process has a cache that no other process and no later call has."""

    def __init__(self, folder: Path):
        self.folder, self._caches = folder, 0
        self.config, self._small = folder / "tiny.py", folder / "small.py"
        self.config.write_text(CONFIGURATION)
        self._small.write_text(CONFIGURATION + SMALL)
        self.records = tiny_records(folder / "records")

    def new_cache(self) -> Path:
        self._caches += 1
        return self.folder / f"cache-{self._caches}"

    def start(self, run: str, processes: int, devices: int):
        command = ["launch.train", str(self._small), "--records", str(self.records), "--output", run]
        environment = {"JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled")}
        own = {index: {"CROPS_CACHE": str(self.new_cache())} for index in range(processes)}
        return clusters.start(
            command, processes=processes, devices=devices, environment=environment, own_environment=own
        )

    def finish(self, run: str, processes: int, devices: int) -> list[clusters.Ended]:
        return clusters.finish(self.start(run, processes, devices))


def kill_after_checkpoint(started, url: str, step: int) -> list[clusters.Ended]:
    """Kills all processes when a checkpoint is whole; they must be running then."""
    store = ObjectStore(f"{url}/checkpoints/{step}")
    deadline = time.monotonic() + clusters.PATIENCE_SECONDS
    while MARKER not in store.listing():
        if time.monotonic() > deadline or any(process.poll() is not None for process in started):
            raise AssertionError([ended.errors for ended in clusters.finish(started)])
        time.sleep(0.3)
    for process in started:
        process.kill()
    return clusters.finish(started)


def assert_alike(run: Path, other: Path, *, tolerance: float) -> None:
    """The same lines of metrics.jsonl, and parameters as close as asked for."""
    lines = [[without_times(line) for line in read_metrics(path)] for path in (run, other)]
    assert [line["step"] for line in lines[0]] == list(range(1, STEPS + 1))
    assert [line["samples_checksum"] for line in lines[0]] == [line["samples_checksum"] for line in lines[1]]
    if not tolerance:
        assert lines[0] == lines[1]
    for which in ("last", "best"):
        parts = [jax.tree.leaves(checkpoints.restore_parameters(path, which=which)) for path in (run, other)]
        for one, two in zip(*parts, strict=True):
            np.testing.assert_allclose(one, two, atol=tolerance, rtol=0)


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


@pytest.fixture
def trained(job, monkeypatch, capfd):
    """Calls launch.train in this process with a small model, and returns its status, outcome and messages."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(job.folder / "compiled"))  # JAX's own settings stay as they are
    use_bag_encoder(monkeypatch)

    def called(run: str, *arguments: str) -> tuple[int, dict, str]:
        monkeypatch.setenv("CROPS_CACHE", str(job.new_cache()))
        return call(
            train,
            capfd,
            str(job.config),
            "--records",
            str(job.records),
            "--output",
            run,
            *arguments,
            "--mesh.data",
            "1",
        )

    return called


@pytest.mark.slow
def test_a_run_in_a_bucket_that_fails_and_is_called_again_is_that_on_a_disk(s3, trained, capfd, tmp_path):
    code, expected, err = trained(str(tmp_path / "on_disk"))
    assert code == 0, err
    s3.faults("forbidden", method="PUT", containing="checkpoints/6/", times=1000)
    code, _, err = trained(URL)
    assert code == 4
    (message,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert message.startswith(
        "error: the checkpoint of step 6 could not be written: s3://bucket/runs/one/checkpoints/6: "
    )
    assert message.endswith(f"last good checkpoint is {URL}/checkpoints/3, and the same command goes on")
    assert "Traceback" not in err
    assert str(tmp_path / "cache") not in err
    s3.reset()
    code, state, err = call(status, capfd, URL)
    assert (code, state["last_checkpoint"], state["finished"]) == (0, 3, False), err
    assert not [path for _, path in s3.requests if "/parameters" in path or "/optimizer" in path]  # no arrays are read
    code, outcome, err = trained(URL)
    assert code == 0, err
    assert without_times(outcome) == without_times(expected) | {"run": URL}
    assert_alike(local_copy(URL), tmp_path / "on_disk", tolerance=0.0)
    kept = checkpoints.saved_steps(tmp_path / "on_disk" / "checkpoints")
    assert checkpoints.saved_steps(local_copy(URL) / "checkpoints") == kept
    assert call(status, capfd, URL)[1]["ended"] == "all steps are done"
    assert set(call(inspect, capfd, URL)[1]["checkpoints"]) == {str(step) for step in kept}
    assert not [name for name in ObjectStore(URL).listing() if name.startswith(("tensorboard", "compilation_cache"))]
    code, again, err = trained(URL)
    assert (code, again["best_step"]) == (0, outcome["best_step"]), err
    assert f"{URL} is finished: {STEPS} steps" in err
    code, _, err = trained(URL, "--training.seed", "9")
    assert code == 2
    assert f"error: {URL} was trained with another configuration: training.seed: 3 there, 9 here" in err


def test_a_refused_bucket_and_wrong_arguments_are_status_2_and_nothing_is_left(s3, trained):
    s3.faults("forbidden", method="PUT", times=1000)
    code, _, err = trained(URL)
    assert code == 2
    assert f"error: {URL}: access is refused" in err
    s3.reset()
    code, _, err = trained("s3://bucket/runs/two", "--encoder.vocabulary-size", "9")
    assert code == 2
    assert ObjectStore("s3://bucket/runs/two").listing() == {}


@pytest.mark.slow
def test_one_process_then_two_without_a_shared_disk_are_killed_and_one_goes_on(s3, job, tmp_path):
    kill_after_checkpoint(job.start(URL, 1, 8), URL, 3)
    killed = kill_after_checkpoint(job.start(URL, 2, 4), URL, 6)
    assert not any("WARNING:absl" in one.errors for one in killed), killed
    (ended,) = job.finish(URL, 1, 8)
    assert ended.status == 0, ended.errors
    assert "steps: 0 to" not in ended.errors
    assert json.loads(ended.output)["run"] == URL
    (alone,) = job.finish(str(tmp_path / "on_disk"), 1, 8)
    assert alone.status == 0, alone.errors
    said = [without_times(json.loads(one.output)) | {"run": ""} for one in (ended, alone)]
    assert said[0] == said[1]
    assert_alike(local_copy(URL), tmp_path / "on_disk", tolerance=1e-5)
    kept = checkpoints.saved_steps(tmp_path / "on_disk" / "checkpoints")
    assert checkpoints.saved_steps(local_copy(URL) / "checkpoints") == kept
    assert not [name for name in ObjectStore(URL).listing() if "_PART" in name]


@pytest.mark.slow
def test_programs_read_a_run_while_it_is_written(s3, job, capfd, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())  # launch.search reads further queries
    folder, config = tmp_path / "work" / "one", TINY.replace(mesh={"data": 1})
    mesh = sharding.make_mesh(config.mesh)
    state = initial_state(dual_encoder.initial_parameters(config, seed=0, mesh=mesh), config, steps=5, mesh=mesh)
    with (
        remote_run.known(folder, URL),
        remote_run.opened(folder, Processes(0, 1), program="launch.train", kind="run"),
        open_run(folder, config=config, records=job.records, arguments={}) as run,
        checkpoints.Checkpoints(run, config, keep_last=2) as saved,
    ):
        save_state(saved, state, checkpoints.Progress())
        saved.wait()
        check_readers(capfd, tmp_path)


def check_readers(capfd, output: Path) -> None:
    logs = small_logs(output / "logs")
    judged = [{"query": f"query {i}", "doc_id": f"d{i}", "grade": 1.0, "split": "test"} for i in range(5)]
    write_table(logs, "judgements", pa.Table.from_pylist(judged))
    run = ("--run", URL)
    for function, arguments in [
        (status, (URL,)),
        (embed, (*run, "--texts", str(logs), "--tower", "document", "--output", str(output / "vectors"))),
        (evaluate, (*run, "--logs", str(logs), "--output", str(output / "evaluation"), "--bootstrap-samples", "100")),
        (export, (*run, "--output", str(output / "exported"))),
        (search, (*run, "--logs", str(logs), "query 1")),
    ]:
        code, outcome, err = call(function, capfd, *arguments)
        assert code == 0, err
        assert not outcome.get("finished")
