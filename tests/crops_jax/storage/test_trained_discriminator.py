"""launch.train_discriminator with RUN in a bucket: it is killed, stopped, refused and taken over as launch.train is."""

import itertools
import json
import shutil
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax.devices.processes import Processes
from crops_jax.discriminator.cross_encoder import WEIGHTS
from crops_jax.errors import Interrupted, NamedFailure
from crops_jax.runs.log import read_metrics
from crops_jax.storage import claims
from crops_jax.storage.inputs import local_copy, whole_checkpoints
from crops_jax.storage.objects.store import ObjectStore
from crops_jax.storage.outputs import files_below, upload_files
from crops_jax.storage.remote import run as remote_run
from data.inspect import inspect
from data.mine import mine
from data.mining.relevance.theta import open_theta
from launch.status import status
from launch.train_discriminator import train_discriminator
from tests import clusters
from tests.crops_jax.storage.remote.test_run import opened
from tests.crops_jax.storage.test_staging import call
from tests.launch.test_train_discriminator import compiled_once, flags, write_judged, written  # noqa: F401
from tests.model_folders import write_bert
from tests.tiny_run import without_times

URL = "s3://bucket/runs/theta"


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    return write_judged(tmp_path_factory.mktemp("judged") / "logs")


@pytest.fixture
def trained(judged, monkeypatch, capfd, tmp_path):
    """Calls the program on a machine of its own, and returns its status, outcome and messages."""
    numbers = itertools.count()

    def called(run: Path | str, *, logs: Path = judged, **changed) -> tuple[int, dict, str]:
        monkeypatch.setenv("CROPS_CACHE", str(tmp_path / f"cache-{next(numbers)}"))
        return call(train_discriminator, capfd, *flags(logs, run, **changed))

    return called


def assert_alike(run: Path, other: Path) -> None:
    for name in (WEIGHTS, "discriminator.json", "fitted.json"):
        assert (run / name).read_bytes() == (other / name).read_bytes()
    lines = [[without_times(line) for line in read_metrics(folder)] for folder in (run, other)]
    assert lines[0] == lines[1] != []


@pytest.mark.slow
def test_a_run_in_a_bucket_that_fails_and_is_called_again_is_finished_and_read(s3, trained, capfd):
    s3.faults("forbidden", method="PUT", containing="checkpoints/8/", times=1000)
    code, _, err = trained(URL)
    assert code == 4
    (message,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert message.startswith(f"error: the checkpoint of step 8 could not be written: {URL}/checkpoints/8: ")
    assert message.endswith(f"last good checkpoint is {URL}/checkpoints/4, and the same command goes on")
    s3.reset()
    code, state, err = call(status, capfd, URL)
    assert (code, state["last_checkpoint"], state["finished"]) == (0, 4, False), err
    code, _, err = call(inspect, capfd, URL)
    assert code == 2
    assert f"{URL}: it has no discriminator.json" in err
    code, outcome, err = trained(URL)
    assert code == 0, err
    assert outcome["run"] == URL
    s3.requests.clear()
    assert [line["step"] for line in read_metrics(local_copy(URL))] == [3, 6, 9, 12]
    code, content, err = call(inspect, capfd, URL)
    assert code == 0, err
    assert content["fitted"] == open_theta(local_copy(URL)).fitted
    # The checkpoints serve to go on with the run, and a program that uses the discriminator reads none of their arrays.
    assert not [path for _, path in s3.requests if "/parameters" in path or "/optimizer" in path]
    again = trained(URL)
    assert again[:2] == (0, outcome)
    assert f"{URL} is finished" in again[2]
    code, _, err = trained(URL, learning_rate=0.02)
    assert code == 2
    assert f"error: {URL} was made from other things (--learning-rate 0.01, now 0.02)" in err
    damage(ObjectStore(URL), WEIGHTS)
    code, _, err = call(inspect, capfd, URL)
    assert code == 2
    assert f"{URL}/{WEIGHTS} is not the file that was published" in err


def damage(store: ObjectStore, name: str) -> None:
    """Changes the last byte of an object."""
    data = store.read(name)
    store.write(name, data[:-1] + bytes([data[-1] ^ 1]))


def test_a_second_program_is_refused_and_takes_over_when_the_first_one_is_silent(
    s3, judged, trained, tmp_path, monkeypatch
):
    """Its quarantine is published beside the run."""
    monkeypatch.setattr(claims, "SILENT_SECONDS", 60.0)
    monkeypatch.setattr(claims, "_RENEWAL_SECONDS", 0.2)
    logs, folder = with_a_bad_row(judged, tmp_path / "logs"), tmp_path / "first" / "theta"
    held = remote_run.opened(folder, Processes(0, 1), program="launch.train_discriminator", kind="discriminator")
    with remote_run.known(folder, URL), held:
        code, _, err = trained(URL)
        assert code == 2
        assert f"error: {URL} is being written by process " in err
        monkeypatch.setattr(claims, "SILENT_SECONDS", -1.0)
        code, outcome, err = trained(URL, logs=logs, steps=1, on_bad_rows="quarantine")
        assert code == 0, err
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        run = remote_run.of(folder)
        assert run is not None
        with pytest.raises(NamedFailure, match=f"another program has taken over {URL}"):
            run.share()
    assert outcome["quarantine"] == f"{URL}.quarantine"
    assert pq.read_table(local_copy(f"{URL}.quarantine") / "judgements.parquet").num_rows == 1


def test_rows_that_are_set_aside_name_the_file_in_the_bucket(s3, judged, tmp_path, capfd):
    for file in with_a_bad_row(judged, tmp_path / "bad").glob("*.parquet"):
        ObjectStore("s3://bucket/it's").write(file.name, file.read_bytes())
    words = [
        "--logs",
        "s3://bucket/it's",
        "--output",
        "s3://bucket/labels",
        "--judgements-as-labels",
        "--grade-levels",
        "0=1,1=4",
    ]
    code, _, err = call(mine, capfd, *words, "--on-bad-rows", "quarantine")
    assert code == 0, err
    (row,) = pq.read_table(local_copy("s3://bucket/labels.quarantine") / "judgements.parquet").to_pylist()
    assert row["file"] == "s3://bucket/it's/judgements.parquet"


def with_a_bad_row(logs: Path, copy: Path) -> Path:
    """Writes a copy of log tables with a judgement more, whose grade is negative."""
    shutil.copytree(logs, copy)
    file = copy / "judgements.parquet"
    rows = pq.read_table(file)
    bad = rows.to_pylist()[0] | {"doc_id": "d99", "grade": -1.0}
    pq.write_table(pa.concat_tables([rows, pa.Table.from_pylist([bad], rows.schema)]), file)
    return copy


def test_what_is_refused_leaves_nothing_and_touches_no_run_of_another_program(s3, trained, tmp_path):
    code, _, err = trained(URL, pairs_per_batch=12)
    assert code == 2
    assert "--pairs-per-batch 12 is not a multiple" in err
    one = {"query": "a", "doc_id": "d0", "grade": 1.0}
    logs = written(tmp_path / "logs", documents=[{"doc_id": "d0", "title": "t"}], judgements=[one])
    code, _, err = trained(URL, logs=logs)
    assert code == 2
    assert "there is nothing to fit a discriminator on" in err
    assert ObjectStore(URL).listing() == {}
    with opened(tmp_path / "first" / "theta", url=URL):
        pass
    before = ObjectStore(URL).listing()
    code, _, err = trained(URL)
    assert code == 2
    assert f"error: {URL} was written by launch.train and its kind is run, not discriminator" in err
    assert {name for name in ObjectStore(URL).listing() if not name.startswith("_CLAIM")} == {
        name for name in before if not name.startswith("_CLAIM")
    }
    ObjectStore(URL).remove([name for name in ObjectStore(URL).listing() if name.startswith("_")])
    code, _, err = trained(URL)
    assert code == 2
    assert f"{URL} was written by launch.train and is not a run of launch.train_discriminator" in err


def stopped(started, number: signal.Signals, *, after: int) -> clusters.Ended:
    """Sends a signal to a process, which must be running, when a checkpoint of this step or a later one is whole."""
    deadline = time.monotonic() + clusters.PATIENCE_SECONDS
    while max(whole_checkpoints(ObjectStore(URL).listing()), default=0) < after:
        if time.monotonic() > deadline or started[0].poll() is not None:
            raise AssertionError(clusters.finish(started))
        time.sleep(0.05)
    started[0].send_signal(number)
    (ended,) = clusters.finish(started)
    return ended


@pytest.mark.slow
def test_killed_and_stopped_on_machines_of_their_own_it_ends_as_on_a_disk(s3, judged, tmp_path):
    """The weights that it starts from lie in the bucket too, and each machine has a copy of them."""
    weights = "s3://bucket/bert"
    upload_files(ObjectStore(weights), files_below(write_bert(tmp_path / "bert", layers=1)))
    numbers = itertools.count()

    def start(run: str | Path):
        changed = {"weights": weights, "steps": 40, "log_every_steps": 1, "checkpoint_every_steps": 3, "dropout": 0.1}
        environment = {
            "CROPS_CACHE": str(tmp_path / f"cache-{next(numbers)}"),
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        }
        command = ["launch.train_discriminator", *flags(judged, run, **changed)]
        return clusters.start(command, processes=1, devices=1, environment=environment)

    assert stopped(start(URL), signal.SIGKILL, after=3).status == -signal.SIGKILL
    saved = whole_checkpoints(ObjectStore(URL).listing())[-1]
    ended = stopped(start(URL), signal.SIGTERM, after=saved + 3)
    assert ended.status == Interrupted.status, ended.errors
    assert "a checkpoint is saved; call the same command again" in ended.errors
    (resumed,), (alone,) = (clusters.finish(start(run)) for run in (URL, tmp_path / "on_disk"))
    assert resumed.status == alone.status == 0, resumed.errors + alone.errors
    assert json.loads(resumed.output)["run"] == URL
    assert_alike(local_copy(URL), tmp_path / "on_disk")
