"""The facts of a run that are not in its manifest."""

import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from crops_jax.devices.processor import processor
from crops_jax.runs.provenance import process_age, provenance, source_commit
from tests.paths import ROOT


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


def test_the_age_of_a_process_counts_from_its_start():
    script = "from crops_jax.runs.provenance import process_age; print(process_age())"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    lasted = time.monotonic() - started
    if not Path("/proc/self/stat").exists():
        assert done.stdout.strip() == "None"
    else:
        # Linux counts the start of a process in hundredths of a second.
        assert 0 < float(done.stdout) <= lasted + 0.02
        assert process_age() > float(done.stdout)


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
