"""From nothing to the report: the generated world, both arms, a kill on the way, and the same command again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.paths import ROOT

ALWAYS = {"CT Recall@100", "QR Recall@100", "NDCG@4"}
# The K of judged and of hidden figures depends on how near 1 they are at 100.
WITHOUT_K = {
    *(
        "Judged Recall",
        "NDCG",
        "True NDCG",
        "CT Recall, unseen pairs",
        "CT Recall",
        "QR Recall",
        "Hidden relevant Recall",
    ),
}
WORLD = ("--documents", "400", "--queries", "150", "--users", "300")
CONFIG = """
from configs.tiny_cpu import CONFIG as TINY

CONFIG = TINY.replace(
    encoder={"width": 32, "layers": 1, "feed_forward_width": 64},
    data={"queries_per_batch": 32},
    training={"steps": 20, "evaluate_every_steps": 10, "checkpoint_every_steps": 5, "log_every_steps": 1},
)
"""


def program(module, *arguments):
    return [sys.executable, "-m", module, *map(str, arguments)]


def run(*command):
    done = subprocess.run(program(*command), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("trained_first", ["search_log", "warm_start"])
def test_the_whole_road_survives_a_kill_and_is_done_once(tmp_path, trained_first):
    simulated = run("data.simulate", "--output", tmp_path / "logs", *WORLD)
    (tmp_path / "small.py").write_text(CONFIG)
    work = tmp_path / "work"
    command = ("launch.pipeline", tmp_path / "small.py", "--logs", tmp_path / "logs", "--output", work)
    command += ("--from", simulated["test_from"])
    others = set()
    if trained_first == "warm_start":
        command += ("--warm-start", "--warm-start-flags", "--training.evaluate-every-steps 4")
        others = {"warm_start"}

    killed = subprocess.Popen(program(*command), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    metrics = work / trained_first / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 900
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert killed.poll() is None, "the pipeline ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()

    outcome = run(*command)
    assert set(outcome["metrics"]) == {"search_log", "cross_perspective", "bm25"} | others
    for figures in outcome["metrics"].values():
        assert set(figures) >= ALWAYS | {"CT Recall@10", "QR Recall@10"}
        assert {re.sub(r"@\d+", "", label) for label in figures} == WITHOUT_K
        assert len(figures) == 9
        assert all(value is None or 0 <= value <= 1 for value in figures.values())
    page = Path(outcome["report"]).read_text()
    assert "cross_perspective" in page
    assert '<script type="application/json"' in page
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == list(range(1, 21))

    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file() and path.name != ".lock"}
    assert run(*command) == outcome
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path for path in before if before[path] != after[path]} <= {work / "config.py", work / "command.txt"}
