"""Wherever a run is killed, the labels and the state are those before it or those after it."""

import shutil
import signal
import subprocess
import sys

import pytest

from tests.data.mining.mined_days.days import DAYS, add, contents, write_partitioned
from tests.paths import ROOT

KILLED = """
import os, signal, sys
from crops_jax.artifacts import atomic
from data.mine import MineArguments, mine
from data.mining.parameters import MiningParameters
from data.mining.state import open_state

left = int(sys.argv[1])

def killed(rename):
    def renamed(*names):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return rename(*names)

    return renamed

os.replace, atomic._exchange = killed(os.replace), killed(atomic._exchange)
logs, output, day, state, discriminator = sys.argv[2:]
parameters = MiningParameters(alpha=0.0)
mine(MineArguments(logs=logs, output=output, day=day, state=state, discriminator=discriminator, parameters=parameters))
"""


def killed_at(renames, root, days, discriminator):
    """Runs DAYS[1] in a process of its own that is killed instead of its rename number `renames`; its exit status."""
    names = [days, root / "labels", DAYS[1], root / "state", discriminator]
    command = [sys.executable, "-c", KILLED, str(renames), *map(str, names)]
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL).returncode


def check_killed(tmp_path, renames, days, discriminator, before, after):
    root = tmp_path / f"killed-{renames}"
    shutil.copytree(before, root)
    status = killed_at(renames, root, days, discriminator)
    for name in (DAYS[0], DAYS[1]):
        old, new = (place / "state" / "days" / f"{name}.parquet" for place in (before, after))
        found = root / "state" / "days" / f"{name}.parquet"
        assert found.read_bytes() in {file.read_bytes() for file in (old, new)}
    # Where a directory is replaced by two renames, there is none between them.
    if sys.platform == "linux" or (root / "labels").exists():
        assert contents(root / "labels") in (contents(before / "labels"), contents(after / "labels"))
    add(DAYS[1], days, root, discriminator=str(discriminator), alpha=0.0)
    assert contents(root / "labels") == contents(after / "labels")
    assert not [file for file in (root / "state").rglob("*") if file.name.startswith(".")]
    return status


@pytest.fixture
def rerun_day(tmp_path, discriminator, over_midnight):
    """Two days mined from one log, and the later one mined again from another log, undisturbed."""
    options = {"discriminator": str(discriminator), "alpha": 0.0}
    first = write_partitioned(tmp_path / "first", over_midnight)
    for day in DAYS[:2]:
        add(day, first, tmp_path / "before", **options)
    over_midnight["feed_views"].append({**over_midnight["feed_views"][-1], "doc_id": "d4"})
    days = write_partitioned(tmp_path / "days", over_midnight)
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    add(DAYS[1], days, tmp_path / "after", **options)
    assert contents(tmp_path / "before" / "labels") != contents(tmp_path / "after" / "labels")
    return days, tmp_path / "before", tmp_path / "after"


def test_a_run_that_is_killed_leaves_nothing_half(tmp_path, discriminator, rerun_day):
    # The first rename is of the scores, the second of the day.
    assert check_killed(tmp_path, 1, rerun_day[0], discriminator, *rerun_day[1:]) == -signal.SIGKILL


@pytest.mark.slow
def test_wherever_it_is_killed(tmp_path, discriminator, rerun_day):
    statuses = []
    while not statuses or statuses[-1] != 0:
        statuses.append(check_killed(tmp_path, len(statuses), rerun_day[0], discriminator, *rerun_day[1:]))
    assert len(statuses) > 5
    assert set(statuses[:-1]) == {-signal.SIGKILL}


@pytest.mark.slow
def test_a_first_run_that_was_killed_pins_nothing(tmp_path, discriminator, over_midnight):
    days = write_partitioned(tmp_path / "days", over_midnight)
    # The renames are of the key, the scores, the manifest, and then the day.
    assert killed_at(3, tmp_path, days, discriminator) == -signal.SIGKILL
    assert (tmp_path / "state" / "manifest.json").exists()
    add(DAYS[0], days, tmp_path, discriminator=str(discriminator), alpha=0.5)
