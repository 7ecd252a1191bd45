"""A run that is written to a bucket: what a kill at any moment leaves is a run with whole checkpoints, or none."""

import contextlib
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from crops_jax import artifacts
from crops_jax.devices.processes import Processes
from crops_jax.errors import InputError, NamedFailure
from crops_jax.storage import claims
from crops_jax.storage.inputs import local_copy
from crops_jax.storage.objects import attempts, parallel
from crops_jax.storage.objects.store import ObjectStore
from crops_jax.storage.remote import run as remote_run
from crops_jax.storage.remote.run import RemoteRun
from tests.crops_jax.devices.test_processes import Service
from tests.crops_jax.storage.servers import WRITES

URL = "s3://bucket/runs/one"
ALONE = Processes(0, 1)
STEPS = (1, 2, 3)


@contextlib.contextmanager
def opened(folder: Path, *, url: str = URL, cluster: Processes = ALONE) -> Iterator[RemoteRun]:
    """Opens a run as launch.train does; `folder` is the local one."""
    with remote_run.known(folder, url), remote_run.opened(folder, cluster, program="launch.train", kind="run"):
        run = remote_run.of(folder)
        assert run is not None
        if cluster.is_first and not (folder / "manifest.json").exists():
            (folder / "tokenizer").mkdir(parents=True)
            (folder / "tokenizer" / "tokenizer.json").write_text("tokens")
            (folder / "config.json").write_text("{}")
            manifest = artifacts.new_manifest(program="launch.train", kind="run", arguments={}, inputs={})
            artifacts.write_manifest(folder, manifest)
        run.share()
        yield run


def save(run: RemoteRun, step: int, *, process: int = 0, kept: int = 2) -> None:
    """Logs a step and saves its checkpoint, whose array has a piece of each process."""
    place = run.folder / "checkpoints" / str(step)

    def written() -> None:
        for name in ("progress/metadata", "parameters/_METADATA", f"parameters/kernel/{process}"):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(f"{name} of step {step}")

    if process == 0:
        with open(run.folder / "metrics.jsonl", "a") as metrics:
            metrics.write(json.dumps({"step": step}) + "\n")
    run.checkpoints.start_upload(step, written=written, kept=lambda steps: set(steps[-kept:]))
    run.checkpoints.wait()


def newest(run: RemoteRun) -> int:
    """Returns the step of the checkpoint that an opened run has on its disk, after checking it; 0 without one."""
    folder = run.folder / "checkpoints"
    steps = [int(entry.name) for entry in folder.iterdir()] if folder.is_dir() else []
    assert len(steps) < 2
    for step in steps:
        check_checkpoint(folder / str(step), step)
    return max(steps, default=0)


def check_checkpoint(folder: Path, step: int, *, processes: int = 1) -> None:
    pieces = [f"parameters/kernel/{process}" for process in range(processes)]
    files = {file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*") if file.is_file()}
    assert files == {name: f"{name} of step {step}" for name in ("progress/metadata", "parameters/_METADATA", *pieces)}


def train(folder: Path, *, until: int = STEPS[-1], kept: int = 2, url: str = URL) -> int:
    """One call of a program that trains. Returns the step from which it went on."""
    with opened(folder, url=url) as run:
        first = newest(run)
        logged = run.folder / "metrics.jsonl"
        lines = [line for line in logged.read_text().splitlines() if line] if logged.exists() else []
        assert len(lines) >= first  # the logs of a checkpoint are there
        logged.write_text("".join(f"{line}\n" for line in lines[:first]))
        for step in range(first + 1, until + 1):
            save(run, step, kept=kept)
    return first


def read(url: str = URL) -> tuple[list[int], list[int]]:
    """Returns the checkpoints of a copy, whose files must be right, and the logged steps."""
    copy = local_copy(url)
    steps = sorted(int(folder.name) for folder in (copy / "checkpoints").iterdir())
    for step in steps:
        check_checkpoint(copy / "checkpoints" / str(step), step)
    logged = copy / "metrics.jsonl"
    return steps, [json.loads(line)["step"] for line in logged.read_text().splitlines()] if logged.exists() else []


@pytest.mark.parametrize("fixture", ["s3", "gcs"])
def test_a_run_is_written_read_while_it_is_written_and_resumed_elsewhere(fixture, request, tmp_path):
    request.getfixturevalue(fixture)
    url = URL if fixture == "s3" else URL.replace("s3", "gs")
    with opened(tmp_path / "first" / "one", url=url) as run:
        assert read(url) == ([], [])
        for step in STEPS:
            save(run, step)
            assert read(url) == (list(STEPS[max(0, step - 2) : step]), list(STEPS[:step]))
    assert ObjectStore(url).read("_CLAIM-000001") == b"{}"
    assert read(url) == ([2, 3], [1, 2, 3])
    assert local_copy(url).name == "one"
    assert train(tmp_path / "second" / "one", until=4, url=url) == 3
    assert read(url) == ([3, 4], [1, 2, 3, 4])
    state = local_copy(url, arrays=False)
    assert [file.name for file in sorted((state / "checkpoints").rglob("*")) if file.is_file()] == ["metadata"] * 2


@pytest.mark.parametrize("fixture", ["s3", "gcs"])
def test_a_result_that_never_changes_again_is_compared_by_every_reader(fixture, request, tmp_path):
    request.getfixturevalue(fixture)
    url = URL if fixture == "s3" else URL.replace("s3", "gs")
    with opened(tmp_path / "first" / "one", url=url) as run:
        (run.folder / "weights").write_text("0.5 0.25")
        run.seal("weights")
        assert (local_copy(url) / "weights").read_text() == "0.5 0.25"
    ObjectStore(url).write("weights", b"0.5 0.75")
    with pytest.raises(InputError, match="runs/one/weights is not the file that was published"):
        local_copy(url)
    ObjectStore(url).remove(["weights"])
    with (
        pytest.raises(InputError, match="runs/one/weights is not the file that was published: it is missing"),
        opened(tmp_path / "second" / "one", url=url),
    ):
        pass


def test_a_second_program_is_refused_and_takes_over_when_the_first_one_is_silent(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "SILENT_SECONDS", 60.0)
    monkeypatch.setattr(claims, "_RENEWAL_SECONDS", 0.2)
    taken = "^another program has taken over s3://bucket/runs/one"

    def both():
        with opened(tmp_path / "first" / "one") as run:
            save(run, 1)
            with pytest.raises(InputError, match=r"runs/one is being written by process \d+ of .*; wait until"):
                train(tmp_path / "second" / "one")
            save(run, 2)
            monkeypatch.setattr(claims, "SILENT_SECONDS", -1.0)
            assert train(tmp_path / "second" / "one") == 2
            with pytest.raises(NamedFailure, match=taken):
                save(run, 4)

    with pytest.raises(NamedFailure, match=taken):
        both()
    assert read() == ([2, 3], [1, 2, 3])
    # What the first one left is removed, and its checkpoint is made again.
    assert train(tmp_path / "third" / "one", until=4) == 3
    assert read() == ([3, 4], [1, 2, 3, 4])


def test_what_a_program_wrote_that_woke_up_too_late_does_not_hold_up_the_present_one(s3, tmp_path):
    """A program was suspended while it uploaded a checkpoint, and goes on when another one has taken over."""
    late = ObjectStore(f"{URL}/checkpoints/1")
    with opened(tmp_path / "second" / "one") as run:
        for name in ("parameters/kernel/0", "progress/metadata"):
            late.write(name, b"of the other program")
        save(run, 1)
        for name in ("parameters/kernel/0", "_PART-000001"):
            ObjectStore(f"{URL}/checkpoints/2").write(name, b"of the other program")
        save(run, 2)
    assert read() == ([1, 2], [1, 2])


def test_a_program_that_has_lost_its_run_uploads_nothing_of_its_next_checkpoint(s3, tmp_path):

    def one():
        with opened(tmp_path / "first" / "one") as run:
            save(run, 1)
            claims._take_next(ObjectStore(URL))
            save(run, 2)

    with pytest.raises(NamedFailure, match="another program has taken over"):
        one()
    assert not ObjectStore(f"{URL}/checkpoints/2").listing()


@pytest.mark.parametrize("where", ["manifest.json", "_RUN", "kernel", "metrics.jsonl", "2/_COMMITTED"])
def test_a_program_that_is_killed_leaves_a_run_that_goes_on(where, s3, tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "WAITS", [])
    monkeypatch.setattr(claims, "SILENT_SECONDS", -1.0)
    kill(s3, lambda method, path: method in WRITES and where in path)
    with pytest.raises(NamedFailure):
        train(tmp_path / "first" / "one")
    revive(s3)
    if where in ("manifest.json", "_RUN"):
        with pytest.raises(InputError, match="is not whole"):
            local_copy(URL)
    else:
        assert read()[0] == ([1] if where == "2/_COMMITTED" else [])
    train(tmp_path / "second" / "one")
    assert read() == ([2, 3], [1, 2, 3])


@pytest.mark.slow
def test_a_program_killed_at_any_request_leaves_a_run_that_goes_on(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "WAITS", [])
    monkeypatch.setattr(claims, "SILENT_SECONDS", -1.0)
    monkeypatch.setattr(parallel, "THREADS", 1)
    found = []
    for alive in itertools.count():
        ObjectStore(URL).remove(list(ObjectStore(URL).listing()))
        left = [alive]

        def over(method, path, left=left):
            left[0] -= method in WRITES
            return left[0] < 0

        kill(s3, over)
        try:
            train(tmp_path / f"first-{alive}" / "one", until=2, kept=1)
            finished = left[0] >= 0
        except (NamedFailure, InputError):
            finished = False
        revive(s3)
        try:
            steps, logged = read()
        except InputError:
            steps, logged = [], []
        assert logged[: max(steps, default=0)] == list(range(1, max(steps, default=0) + 1))
        found.append(max(steps, default=0))
        assert train(tmp_path / f"second-{alive}" / "one", until=2, kept=1) == found[-1]
        steps, logged = read()
        # Old ones that a kill left are removed with the next save.
        assert (steps[-1:], logged) == ([2], [1, 2])
        (claim,) = [name for name in ObjectStore(URL).listing() if name.startswith("_CLAIM")]
        assert ObjectStore(URL).read(claim) == b"{}"
        if finished:
            break
    assert found == sorted(found)
    assert set(found) == {0, 1, 2}


def kill(proxy, when) -> None:
    """Lets all requests from the first one on for which `when` is true be without an answer."""
    dead = []

    def fault(method, path):
        if dead or when(method, path):
            dead.append(path)
            return "dead"
        return None

    proxy.fault = fault


def revive(proxy) -> None:
    proxy.fault = lambda method, path: None


def test_faults_that_pass_leave_no_trace(s3, tmp_path):
    left = {"unavailable": 2, "lost": 1, "cut": 2, "dead": 2}

    def fault(method, path):
        for kind in left:
            if left[kind] and "checkpoints/" in path and method == ("GET" if kind == "cut" else "PUT"):
                left[kind] -= 1
                return kind
        return None

    s3.fault = fault
    train(tmp_path / "first" / "one")
    assert train(tmp_path / "second" / "one") == 3
    assert not any(left.values())
    assert read() == ([2, 3], [1, 2, 3])


@pytest.mark.parametrize(("kind", "words"), [("forbidden", "access is refused"), ("unavailable", "4 attempts failed")])
def test_a_checkpoint_that_the_server_refuses_is_a_failure_that_names_the_last_one(kind, words, s3, tmp_path):
    with opened(tmp_path / "first" / "one") as run:
        save(run, 1)
        s3.faults(kind, method="PUT", containing="checkpoints/2/", times=1000)
        with pytest.raises(NamedFailure, match=f"the checkpoint of step 2 could not be written: .*{words}") as failed:
            save(run, 2)
        last = f"{URL}/checkpoints/1"
        assert str(failed.value).endswith(f"The last good checkpoint is {last}, and the same command goes on")
        assert run.checkpoints.last_good() == f"the last good checkpoint is {last}"
    s3.reset()
    assert train(tmp_path / "second" / "one") == 1
    assert read() == ([2, 3], [1, 2, 3])


@pytest.mark.parametrize(
    ("fault", "url", "words"),
    [
        ("forbidden", URL, "access is refused"),
        (None, "s3://nowhere/run", "there is no bucket nowhere"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_done(fault, url, words, s3, tmp_path):
    if fault:
        s3.faults(fault, method="PUT", times=1000)
    with pytest.raises(InputError, match=words):
        train(tmp_path / "first" / "one", url=url)


def test_what_is_no_run_is_never_touched(s3, tmp_path):
    store = ObjectStore(URL)
    store.write("thesis.tex", b"1")
    with pytest.raises(InputError, match="s3://bucket/runs/one holds files that no program of crops_jax wrote"):
        train(tmp_path / "first" / "one")
    for program, kind, words in [
        ("data.mine", "labels", "was written by data.mine and is not a run of launch.train"),
        ("launch.train", "run", "is a run that was copied there"),
    ]:
        manifest = artifacts.new_manifest(program=program, kind=kind, arguments={}, inputs={})
        store.write("manifest.json", json.dumps(manifest).encode())
        with pytest.raises(InputError, match=words):
            train(tmp_path / "first" / "one")
    assert set(store.listing()) == {"thesis.tex", "manifest.json"}


def test_a_run_whose_marker_was_removed_keeps_its_checkpoints(s3, tmp_path):
    """Without its marker it looks like a run that was never begun, whose files are removed."""
    train(tmp_path / "first" / "one")
    store = ObjectStore(URL)
    store.remove(["_RUN"])
    before = store.listing()
    with pytest.raises(InputError, match=f"{URL} has checkpoints, and its _RUN was removed; copy it to a disk"):
        train(tmp_path / "second" / "one")
    assert store.listing() == before


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_goes_on(s3, tmp_path):
    train(tmp_path / "first" / "one")
    store = ObjectStore(f"{URL}/checkpoints/3")
    store.write("parameters/kernel/0", b"x" * store.listing()["parameters/kernel/0"].size)
    with pytest.raises(InputError, match=r"checkpoints/3: the checkpoint cannot be read .* is not the file that was"):
        train(tmp_path / "second" / "one")
    with pytest.raises(InputError, match="checkpoints/3/parameters/kernel/0 is not the file that was published"):
        read()
    store.remove(list(store.listing()))
    assert train(tmp_path / "second" / "one") == 2
    assert read() == ([2, 3], [1, 2, 3])


def test_a_checkpoint_that_is_removed_while_it_is_copied_is_left_out(s3, tmp_path):
    with opened(tmp_path / "first" / "one") as run:
        save(run, 1)
        save(run, 2)
        inner = []

        def meanwhile(method, path):
            if method == "GET" and "checkpoints/1/parameters" in path and not inner:
                inner.append(None)
                save(run, 3)

        s3.fault = meanwhile
        assert read() == ([2, 3], [1, 2, 3])
        assert inner


def test_logs_are_in_the_bucket_soon_after_they_are_written(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_run, "MIRROR_SECONDS", 0.02)
    sent = threading.Event()

    def note(method, path):
        if method == "PUT" and "metrics.jsonl" in path:
            sent.set()

    s3.fault = note
    with opened(tmp_path / "first" / "one") as run:
        (run.folder / "metrics.jsonl").write_text('{"step": 1}\n')
        for left_out in ("tensorboard", "compilation_cache", ".lock"):
            (run.folder / left_out).mkdir()
            (run.folder / left_out / "file").touch()
        assert sent.wait(60)
        (run.folder / "hang-0.txt").write_text("stacks")
        run.send_soon("hang-0.txt")
    small = {
        "_CLAIM-000001",
        "_RUN",
        "manifest.json",
        "config.json",
        "tokenizer/tokenizer.json",
        "metrics.jsonl",
        "hang-0.txt",
    }
    assert set(ObjectStore(URL).listing()) == small
    # Compiled programs stay for the next call on this machine.
    assert train(tmp_path / "first" / "one", until=1) == 0
    assert (tmp_path / "first" / "one" / "compilation_cache" / "file").exists()


def in_two_processes(act) -> list:
    """Returns what act(cluster) returns or raises in each of two processes, which are threads here."""
    service, ended = Service(2), [None, None]

    def one(index: int) -> None:
        try:
            ended[index] = act(Processes(index, 2, service))
        except BaseException as error:
            ended[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def test_two_processes_without_a_shared_disk_write_one_checkpoint(s3, tmp_path):
    def act(cluster):
        with opened(tmp_path / f"disk-{cluster.index}" / "one", cluster=cluster) as run:
            for step in STEPS:
                save(run, step, process=cluster.index)
            return sorted(path.name for path in run.folder.iterdir())

    first, second = in_two_processes(act)
    assert first == ["checkpoints", "config.json", "manifest.json", "metrics.jsonl", "tokenizer"]
    assert second == ["checkpoints", "config.json", "manifest.json", "tokenizer"]
    copy = local_copy(URL)
    for step in (2, 3):
        check_checkpoint(copy / "checkpoints" / str(step), step, processes=2)
    assert not [name for name in ObjectStore(URL).listing() if "_PART" in name]


def test_a_checkpoint_of_which_a_process_has_not_uploaded_its_part_is_not_whole(s3, tmp_path):
    def act(cluster):
        with opened(tmp_path / f"disk-{cluster.index}" / "one", cluster=cluster) as run:
            save(run, 1, process=cluster.index)
            if cluster.is_first:
                threading.Timer(0.5, run.checkpoints._stopped.set).start()  # as when the process is ended
                save(run, 2)

    first, second = in_two_processes(act)
    assert isinstance(first, NamedFailure), first
    assert second is None
    copy = local_copy(URL)
    assert [folder.name for folder in (copy / "checkpoints").iterdir()] == ["1"]
    assert "checkpoints/2/parameters/kernel/0" in ObjectStore(URL).listing()
    with opened(tmp_path / "third" / "one"):
        assert not [name for name in ObjectStore(URL).listing() if name.startswith("checkpoints/2/")]


def test_processes_that_end_together_give_the_claim_back(s3, tmp_path):
    def act(cluster):
        with opened(tmp_path / f"disk-{cluster.index}" / "one", cluster=cluster), cluster.together():
            if not cluster.is_first:
                raise InputError("other records")

    first, second = in_two_processes(act)
    assert (type(first).__name__, type(second).__name__) == ("AnotherProcessFailed", "InputError")
    assert ObjectStore(URL).read("_CLAIM-000001") == b"{}"
