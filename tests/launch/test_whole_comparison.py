"""A whole comparison in a very small world: killed after its first cell, and finished by the same command."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from crops_jax.config.stored import read_config
from crops_jax.runs.checkpoints import restore_parameters
from crops_jax.runs.log import read_goodput
from launch.comparison.measures import MAIN
from tests.paths import ROOT

CONFIG = """
from configs.tiny_cpu import CONFIG as TINY

CONFIG = TINY.replace(
    encoder={"width": 16, "layers": 1, "heads": 2, "feed_forward_width": 32, "vocabulary_size": 512},
    data={"queries_per_batch": 16},
)
"""
WORLD = "--documents 200 --queries 60 --users 150"


# One device, and compilation that is quick rather than good: a few steps of a tiny encoder are all that is run.
ENVIRONMENT = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


@pytest.fixture(scope="module", autouse=True)
def shared_compilation_cache(tmp_path_factory):
    """The tables of all tests train the same tiny encoder, so that most programs are compiled once."""
    ENVIRONMENT["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path_factory.mktemp("compilation_cache"))


def command(folder: Path, *more: str) -> list[str]:
    (folder / "small.py").write_text(CONFIG)
    given = ("--output", folder / "table", "--world", WORLD, "--transformer", folder / "small.py", "--seeds", 2)
    given += ("--steps", 4, "--bootstrap-samples", 1000, *more)
    return [sys.executable, "-m", "launch.compare", *map(str, given)]


def finish(words: list[str]) -> dict:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def stop_after_a_cell(words: list[str], results: Path, number: int) -> int:
    """Sends a signal when the first result has appeared, and returns the exit status."""
    messages = results.parent.with_suffix(".messages")
    with open(messages, "w") as written:
        started = subprocess.Popen(words, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=written)
    deadline = time.monotonic() + 900
    while not list(results.glob("*-*.json")):
        assert started.poll() is None, f"the comparison ended before it was stopped: {messages.read_text()[-3000:]}"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(started.pid, number)
    started.communicate()
    return started.returncode


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "table" / "table.csv", newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.slow
def test_a_comparison_survives_a_kill_and_runs_each_cell_once(tmp_path):
    words = command(tmp_path, "--systems", "bm25,crops_query_level", "--reference", "bm25")
    words += ["--learning-rate-factors", "1"]
    results = tmp_path / "table" / "results"
    assert stop_after_a_cell(words, results, signal.SIGKILL) == -signal.SIGKILL
    before = {file.name: file.stat().st_mtime_ns for file in results.glob("*-*.json")}

    outcome = finish(words)
    assert outcome["cells"]["finished"] == outcome["cells"]["in_the_table"] == 3
    assert outcome["cells"]["ran"] == 3 - len(before)
    assert before.items() <= {file.name: file.stat().st_mtime_ns for file in results.glob("*-*.json")}.items()
    rows = table(tmp_path)
    assert list(rows[0]) == ["system", "architecture", "seed", "metric", "value", "low", "high"]
    measured = [row for row in rows if "@" in row["metric"] and not row["metric"].startswith("dev")]
    # Metrics that are not in the main table have a mean and no interval.
    with_interval = [row for row in measured if row["low"]]
    assert all(0 <= float(row["low"]) <= float(row["value"]) <= float(row["high"]) <= 1 for row in with_interval)
    assert {row["metric"] for row in with_interval} == {row["metric"] for row in measured} & MAIN.keys()
    assert all(0 <= float(row["value"]) <= 1 for row in measured)
    seeds = {row["seed"] for row in rows if row["system"] == "crops_query_level"}
    assert seeds == {"0", "1", "all"}
    assert {"ct_recall@100", "ndcg@4", "judged_recall@100", "step_seconds"} <= {row["metric"] for row in rows}
    assert '<script type="application/json"' in Path(outcome["report"]).read_text()

    assert finish(words) == outcome | {"cells": outcome["cells"] | {"ran": 0, "taken_over": 3}}


@pytest.mark.slow
def test_a_system_in_phases_is_killed_while_it_trains_and_finished(tmp_path):
    words = command(tmp_path, "--systems", "nce,ance,adore_star,simans", "--reference", "nce", "--keep", "all")
    words += ["--learning-rate-factors", "1", "--seeds", "1", "--steps", "8"]
    results = tmp_path / "table" / "results"
    assert stop_after_a_cell(words, results, signal.SIGKILL) == -signal.SIGKILL
    outcome = finish(words)
    assert outcome["cells"]["finished"] == outcome["cells"]["in_the_table"] == 5
    figures = {(row["system"], row["metric"]): row["value"] for row in table(tmp_path) if row["seed"] == "0"}
    assert (float(figures["ance", "refreshes"]), float(figures["ance", "largest_staleness_steps"])) == (3, 1)
    run = tmp_path / "table" / "runs" / "ance-transformer-0-1" / "run"
    refreshes = [line for line in read_goodput(run) if line.get("event") == "refresh"]
    assert [line["step"] for line in refreshes] == [2, 4, 6]
    assert all(line["negatives"] > 0 and line["documents"] > 0 for line in refreshes)
    adore = tmp_path / "table" / "runs" / "adore_star-transformer-0-1"
    before, after = (
        restore_parameters(run, which="best") for run in (adore / "phases" / "star" / "run", adore / "run")
    )
    unchanged = jax.tree.map(np.array_equal, before["tower"], after["document_tower"])
    assert all(jax.tree.leaves(unchanged))
    assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, before["tower"], after["query_tower"])))
    assert finish(words) == outcome | {"cells": outcome["cells"] | {"ran": 0, "taken_over": 5}}


@pytest.mark.slow
def test_both_architectures_and_tuning_after_a_polite_stop(tmp_path):
    words = command(tmp_path, "--systems", "untrained,nce,fs_lr", "--reference", "nce")
    words += ["--learning-rate-factors", "1", "2", "--discriminator", "cross_encoder"]
    words += ["--warm-start", "catalogue", "--warm-start-flags", "--training.epochs 1"]
    words += ["--discriminator-flags", "--epochs 1 --layers 1 --width 32 --heads 2 --feed-forward-width 64"]
    assert stop_after_a_cell(words, tmp_path / "table" / "results", signal.SIGTERM) == 3
    outcome = finish(words)
    assert outcome["cells"]["finished"] == 12
    rows = table(tmp_path)
    assert {row["architecture"] for row in rows} == {"transformer", "hashed"}
    # An untrained encoder and a trained one of the same seed start from the same weights, and only one of them moves.
    measured = [row for row in rows if row["metric"] == "ct_recall@10" and row["seed"] == "0"]
    values = {(row["system"], row["architecture"]): float(row["value"]) for row in measured}
    for towers in ("transformer", "hashed"):
        assert values["untrained", towers] != values["nce", towers]
    # Each of the trained systems has the factor that its first seed chose, in both seeds.
    chosen = [row for row in rows if row["metric"] == "learning_rate_factor" and row["seed"] != "all"]
    factors: dict[tuple[str, str], set[str]] = {}
    for row in chosen:
        factors.setdefault((row["system"], row["architecture"]), set()).add(row["value"])
    assert len(chosen) == 8
    assert len(factors) == 4
    assert all(len(one) == 1 and one <= {"1.0", "2.0"} for one in factors.values())
    assert len(list((tmp_path / "table" / "results").glob("*.tuning.json"))) == 4


@pytest.mark.slow
def test_the_fast_comparison_is_a_whole_one(tmp_path):
    words = [sys.executable, "-m", "launch.compare", "--fast", "--output", str(tmp_path / "table"), "--seeds", "1"]
    outcome = finish([*words, "--systems", "bm25,fs_lr,crops"])
    assert outcome["cells"]["finished"] == outcome["cells"]["in_the_table"] == 5
    rows = table(tmp_path)
    assert {(row["system"], row["architecture"]) for row in rows} == {
        ("bm25", "none"),
        *((system, towers) for system in ("fs_lr", "crops") for towers in ("transformer", "hashed")),
    }
    steps = {float(row["value"]) for row in rows if row["metric"] == "best_step" and row["system"] != "bm25"}
    assert steps == {30.0}
    with open(tmp_path / "table" / "claims.csv", newline="") as opened:
        verdicts = {row["claim"]: row["verdict"] for row in csv.DictReader(opened)}
    # One seed decides nothing, and systems that were not asked for are not run.
    assert verdicts["CroPS retrieves more than BM25"] == "too few seeds"
    assert verdicts["CroPS retrieves more than NCE"] == "not run"
    assert "<svg" in (tmp_path / "table" / "main.svg").read_text()
    assert "CroPS retrieves more than BM25" in Path(outcome["report"]).read_text()


@pytest.mark.slow
def test_a_poly_encoder_reranks_the_documents_of_crops_and_scores_every_document(tmp_path):
    words = command(tmp_path, "--systems", "poly_encoder,poly_encoder_upper_bound", "--reference", "poly_encoder")
    words += ["--learning-rate-factors", "1", "--seeds", "1", "--keep", "all"]
    outcome = finish(words)
    assert outcome["cells"]["finished"] == outcome["cells"]["in_the_table"] == 2
    runs = tmp_path / "table" / "runs"
    assert sorted(folder.name for folder in runs.iterdir()) == ["crops-transformer-0-1", "poly_encoder-transformer-0-1"]
    assert read_config(runs / "poly_encoder-transformer-0-1" / "run" / "config.json").encoder.query_codes == 64
    measured = json.loads((runs / "poly_encoder-transformer-0-1" / "evaluation" / "metrics.json").read_text())
    assert (measured["poly_encoder"]["codes"], measured["poly_encoder"]["documents"]) == (64, 200)
    # All 200 documents are reranked in this world, so that both orders are the same but for equal scores.
    reranked, every = measured["systems"]["poly_encoder"], measured["systems"]["poly_encoder_exhaustive"]
    assert reranked["ct"]["recall@10"]["value"] == pytest.approx(every["ct"]["recall@10"]["value"], abs=0.01)
    systems = {row["system"] for row in table(tmp_path) if row["metric"] == "ct_recall@100"}
    assert systems == {"poly_encoder", "poly_encoder_upper_bound"}
