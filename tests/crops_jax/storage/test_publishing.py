"""Folders are published and copied; a kill, a lost write or a second writer never makes a part pass for the whole."""

import itertools
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from crops_jax import artifacts
from crops_jax.errors import InputError, NamedFailure
from crops_jax.storage import claims
from crops_jax.storage.inputs import local_copy
from crops_jax.storage.objects import attempts, parallel
from crops_jax.storage.objects.store import ObjectStore
from crops_jax.storage.outputs import publish_folder
from tests.crops_jax.storage.servers import WRITES

URL = "s3://bucket/made/labels"


def folder_of(path: Path, text: str, *, further: tuple[str, ...] = ()) -> Path:
    """Writes a folder as programs do, with a file in a folder in it, and returns it."""
    with artifacts.output_directory(
        path, overwrite=True, program="p", kind="labels", arguments={"text": text}, inputs={}
    ) as out:
        (out / "labels").mkdir()
        for name in ("labels/part-0.parquet", "labels/part-1.parquet", "sweep.json", *further):
            (out / name).write_text(f"{text} {name}")
    return path


def content(folder: Path) -> dict[str, str]:
    return {f.relative_to(folder).as_posix(): f.read_text() for f in folder.rglob("*") if f.is_file()}


def publish(folder: Path, url: str = URL) -> None:
    store = ObjectStore(url)
    publish_folder(folder, store, store.listing())


def read_outcome(old: Path, new: Path) -> str:
    """Returns which of two folders a reader finds, or that it finds none."""
    try:
        found = content(local_copy(URL))
    except InputError:
        return "refused"
    return {str(content(old)): "old", str(content(new)): "new"}[str(found)]


@pytest.mark.parametrize("fixture", ["s3", "gcs"])
def test_what_is_published_is_copied_back_and_kept(fixture, request, tmp_path):
    proxy = request.getfixturevalue(fixture)
    url = URL if fixture == "s3" else URL.replace("s3", "gs")
    folder = folder_of(tmp_path / "made", "one")
    publish(folder, url)
    assert set(ObjectStore(url).listing()) == {"_COMMITTED", *content(folder)}
    copy = local_copy(url)
    assert copy.name == "labels"
    assert content(copy) == content(folder)
    proxy.requests.clear()
    assert local_copy(url) == copy
    assert not any("part-0" in path for _, path in proxy.requests)  # nothing is copied twice
    publish(folder_of(tmp_path / "other", "two", further=("new",)), url)
    assert content(local_copy(url)) == content(tmp_path / "other")
    publish(folder, url)  # what the present folder does not have is removed
    assert content(local_copy(url)) == content(folder)


def test_a_part_that_a_killed_writer_left_is_refused_and_then_replaced(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "WAITS", [])
    monkeypatch.setattr(claims, "STALE_SECONDS", -1.0)
    folder = folder_of(tmp_path / "made", "one")
    s3.faults("dead", method="PUT", containing="_COMMITTED", times=100)
    with pytest.raises(NamedFailure):
        publish(folder)
    assert set(content(folder)) < set(ObjectStore(URL).listing())
    with pytest.raises(InputError, match="s3://bucket/made/labels is not whole: a program is publishing it"):
        local_copy(URL)
    s3.reset()
    publish(folder)
    assert content(local_copy(URL)) == content(folder)


@pytest.mark.slow
@pytest.mark.parametrize("replaces", [False, True])
def test_a_writer_killed_at_any_request_leaves_no_part_that_passes_for_the_whole(replaces, s3, tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "WAITS", [])
    monkeypatch.setattr(parallel, "THREADS", 1)
    monkeypatch.setattr(claims, "STALE_SECONDS", -1.0)
    old, new = folder_of(tmp_path / "old", "old"), folder_of(tmp_path / "new", "new", further=("more",))
    outcomes = []
    for alive in itertools.count():
        ObjectStore(URL).remove(list(ObjectStore(URL).listing()))
        if replaces:
            publish(old)
        left = [alive]

        def fault(method, path, left=left):
            left[0] -= method in WRITES
            return "dead" if left[0] < 0 else None

        s3.fault = fault
        try:
            publish(new)
            finished = True
        except (NamedFailure, InputError):
            finished = False
        s3.fault = lambda method, path: None
        outcomes.append(outcome := read_outcome(old, new))
        assert outcome != "old" or replaces
        if not finished:
            publish(new)  # the next writer goes on
            assert content(local_copy(URL)) == content(new)
        else:
            break
    assert len(outcomes) > 7
    assert outcomes == sorted(outcomes, key=["old", "refused", "new"].index)
    assert ("old" in outcomes) == replaces
    assert "refused" in outcomes


def test_a_folder_in_a_half_published_folder_is_refused(s3, tmp_path):
    store = ObjectStore(URL)
    store.create("_CLAIM-000001", b"a claim")
    store.write("labels/part-0.parquet", b"1")
    with pytest.raises(InputError, match="s3://bucket/made/labels is not whole: a program is publishing it"):
        local_copy(f"{URL}/labels")


def test_a_write_that_the_server_loses_is_made_again(s3, tmp_path):
    folder = folder_of(tmp_path / "made", "one")
    s3.faults("lost", method="PUT", containing="part-1")
    publish(folder)
    assert content(local_copy(URL)) == content(folder)
    s3.faults("lost", method="PUT", containing="part-1", times=9)
    with pytest.raises(NamedFailure, match=r"part-1.parquet: the server took the file and does not list it"):
        publish(folder_of(tmp_path / "two", "longer than one"))
    with pytest.raises(InputError, match="is not whole"):
        local_copy(URL)


def test_two_writers_do_not_mix(s3, tmp_path, monkeypatch):
    first, second = folder_of(tmp_path / "first", "first"), folder_of(tmp_path / "second", "second")
    inner = []

    def meanwhile(method, path):
        # The second writer begins when the first one uploads its first file.
        if method == "PUT" and "part-0" in path and not inner:
            inner.append(None)
            with pytest.raises(InputError, match=r"is being written by process \d+ of .*wait until it ends"):
                publish(second)
        return

    s3.fault = meanwhile
    publish(first)
    assert inner
    assert content(local_copy(URL)) == content(first)


def test_a_claim_of_a_process_of_this_machine_that_has_ended_does_not_hold(s3, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder, store = folder_of(tmp_path / "made", "one"), ObjectStore(URL)
    here = claims._this_process()
    ended_here = {"host": socket.gethostname(), "process": ended.pid}
    for changed, refused in [
        ({"host": "elsewhere"}, True),
        ({"boot": "another"} | ended_here, True),
        ({"boot": "another", "pid_namespace": "another"} | ended_here, True),
        ({}, True),
        (ended_here, False),
        ({"started": -7}, False),  # the number of the process has been given again
    ]:
        holder = here | changed
        store.write("_CLAIM-000003", json.dumps(holder).encode())
        if refused:
            with pytest.raises(
                InputError, match=f"is being written by process {holder['process']} of {holder['host']}; wait"
            ):
                publish(folder)
        else:
            publish(folder)
    assert content(local_copy(URL)) == content(folder)
    assert set(store.listing()) == {"_COMMITTED", *content(folder)}


def test_a_writer_of_another_container_of_this_host_is_watched_for_a_sign_of_life(s3, tmp_path, monkeypatch):
    """The number of its process means nothing here, whether a process has it or none."""
    folder, store = folder_of(tmp_path / "made", "one"), ObjectStore(URL)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    holder = claims._this_process() | {"pid_namespace": "pid:[1]", "process": ended.pid}
    monkeypatch.setattr(claims, "SILENT_SECONDS", 60.0)
    store.write("_CLAIM-000003", json.dumps(holder).encode())
    renewed, written = [], ObjectStore.written

    def renewing(self, name):
        if renewed:  # the writer lives: it renews its claim between two looks
            return written(self, name) + 20.0
        renewed.append(name)
        return written(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "written", renewing)
        patch.setattr(claims.time, "sleep", lambda seconds: None)
        with pytest.raises(InputError, match=f"is being written by process {ended.pid} of"):
            publish(folder)
    monkeypatch.setattr(claims, "SILENT_SECONDS", -1.0)
    publish(folder)
    assert content(local_copy(URL)) == content(folder)


def test_a_writer_that_was_taken_for_dead_does_not_publish(s3, tmp_path, monkeypatch):
    first, second = folder_of(tmp_path / "first", "first"), folder_of(tmp_path / "second", "second")
    monkeypatch.setattr(claims, "STALE_SECONDS", -1.0)
    monkeypatch.setattr(parallel, "THREADS", 1)
    inner = []

    def meanwhile(method, path):
        if method == "PUT" and "part-1" in path and not inner:
            inner.append(None)
            publish(second)
        return

    s3.fault = meanwhile
    with pytest.raises(InputError, match="was written by another process in the meantime"):
        publish(first)
    # What the first writer wrote over files of the second shows in their checksums.
    with pytest.raises(InputError, match="is not the file that was published"):
        local_copy(URL)


def test_a_folder_that_was_published_meanwhile_is_not_replaced(s3, tmp_path):
    store = ObjectStore(URL)
    seen = store.listing()
    publish(folder_of(tmp_path / "first", "first"))
    with pytest.raises(InputError, match="was written by another process in the meantime"):
        publish_folder(folder_of(tmp_path / "second", "second"), store, seen)
    assert content(local_copy(URL)) == content(tmp_path / "first")


def test_a_file_that_was_damaged_is_named(s3, tmp_path):
    publish(folder_of(tmp_path / "made", "one"))
    store = ObjectStore(URL)
    store.write("sweep.json", b"xxx sweep.json")  # as long as before
    with pytest.raises(InputError, match=r"sweep.json is not the file that was published"):
        local_copy(URL)
    store.remove(["sweep.json"])
    with pytest.raises(InputError, match=r"sweep.json is not the file that was published"):
        local_copy(URL)


def test_folders_that_other_tools_copied_are_checked_by_their_manifest(s3, tmp_path):
    folder, store = folder_of(tmp_path / "made", "one"), ObjectStore(URL)
    for name in content(folder):
        store.upload(name, folder / name)
    assert content(local_copy(URL)) == content(folder)
    store.remove(["labels/part-1.parquet"])
    with pytest.raises(InputError, match=r"is not whole: its files are not those of its manifest\.json"):
        local_copy(URL)


def test_files_and_folders_of_others_are_copied(s3, tmp_path):
    store = ObjectStore("s3://bucket/raw")
    store.write("documents.parquet", b"1")
    store.write("more/", b"")  # as consoles mark folders
    store.write("more/x", b"2")
    assert content(local_copy("s3://bucket/raw/")) == {"documents.parquet": "1", "more/x": "2"}
    assert local_copy("s3://bucket/raw/documents.parquet").read_text() == "1"
    with pytest.raises(InputError, match="s3://bucket/nothing: no such file or folder in the bucket"):
        local_copy("s3://bucket/nothing")


@pytest.mark.parametrize("name", ["../../../outside", "in/../../outside", "a/./b", "a//b", "/a", "part-0/below"])
def test_an_object_whose_name_is_that_of_no_file_in_the_copy_is_refused(name, s3, tmp_path):
    """An object store takes any text for a name. `../../../outside` would be written outside of the copies."""
    store = ObjectStore(URL)
    store.write("part-0", b"1")
    store.write(name, b"2")
    with pytest.raises(InputError, match=rf"{URL}/.*cannot be a file on a disk .*rename or remove it"):
        local_copy(URL)
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".lock"]


def test_a_copy_that_lost_a_file_is_made_again(s3, tmp_path):
    publish(folder_of(tmp_path / "made", "one"))
    copy = local_copy(URL)
    (copy / "sweep.json").unlink()
    assert content(local_copy(URL)) == content(tmp_path / "made")
    shutil.rmtree(copy.parent)
    assert content(local_copy(URL)) == content(tmp_path / "made")


def test_reads_are_parallel(s3, tmp_path):
    folder = folder_of(tmp_path / "made", "one", further=tuple(f"file-{number}" for number in range(40)))
    publish(folder)
    s3.reset()
    s3.awaited_reads = (5, "file-")
    assert content(local_copy(URL)) == content(folder)
    assert s3.most_reads_at_once >= 5
