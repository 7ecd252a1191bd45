"""The facts of a run that are not in its manifest."""

import subprocess
from datetime import UTC, datetime
from types import SimpleNamespace

from crops_jax.devices.processor import processor
from crops_jax.runs.provenance import provenance, source_commit


def git(folder, *arguments):
    named = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    return subprocess.run(
        ["git", "-C", str(folder), *named, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_start_of_a_run_names_its_time_devices_and_processes():
    before = datetime.now(UTC).replace(microsecond=0)
    found = provenance([SimpleNamespace(device_kind="TPU v5 lite")] * 8)
    assert before <= datetime.fromisoformat(found["time"]) <= datetime.now(UTC)
    assert (found["devices"], found["processes"]) == ("8 x TPU v5 lite", 1)
    assert provenance([SimpleNamespace(device_kind="cpu")])["devices"] == f"1 x cpu ({processor()})"


def test_a_commit_is_named_with_whether_files_changed_since(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    head = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    (tmp_path / "output").write_text("not tracked")
    assert source_commit(tmp_path) == head
    (tmp_path / "file").write_text("two")
    assert source_commit(tmp_path) == f"{head} with changes"


def test_outside_of_a_clone_there_is_no_commit(tmp_path):
    assert source_commit(tmp_path) is None
    (tmp_path / ".git").mkdir()  # an empty folder is no clone
    assert source_commit(tmp_path) is None
