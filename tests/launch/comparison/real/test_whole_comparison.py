"""A whole comparison on made-up judgements, with a very small encoder and with the peer where it is installed."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pytest

from crops_jax.runs.checkpoints import restore_parameters
from data.tables import write_table
from launch.comparison.real.peer import peer_absence
from tests.model_folders import WORDS, add_modules, write_bert
from tests.paths import ROOT

pytestmark = pytest.mark.slow

# Compilation that is quick rather than good: a few steps of a tiny encoder are all that is run.
ENVIRONMENT = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
NOUNS = [word for word in WORDS if word.isascii() and word.isalpha()]


def write_logs(folder: Path) -> Path:
    """Judgements of 90 queries of two words with the documents that have them (grade 3) or one of them (grade 1)."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    titles = [" ".join(generator.choice(NOUNS, 4)) for _ in range(200)]
    doc_ids = [f"d{number:03d}" for number in range(200)]
    queries = sorted({" ".join(generator.choice(NOUNS, 2)) + f" {number}" for number in range(90)})
    rows = []
    for query in queries:
        wanted = set(query.split()[:2])
        found = sorted(range(200), key=lambda number: -len(wanted & set(titles[number].split())))[:6]
        grades = [3 if wanted <= set(titles[number].split()) else 1 for number in found]
        rows += [(query, doc_ids[number], float(grade)) for number, grade in zip(found, grades, strict=True)]
    write_table(folder, "documents", pa.table({"doc_id": doc_ids, "title": titles}))
    columns = dict(zip(("query", "doc_id", "grade"), map(list, zip(*rows, strict=True)), strict=True))
    write_table(folder, "judgements", pa.table(columns))
    return folder


def test_every_system_is_measured_on_the_same_queries(tmp_path):
    logs = write_logs(tmp_path / "logs")
    weights = add_modules(write_bert(tmp_path / "weights", max_length=128, max_positions=160), max_seq_length=128)
    words = ["--real", "icecat", "--logs", logs, "--weights", weights, "--output", tmp_path / "table", "--seeds", 1]
    words += ["--steps", 3, "--bootstrap-samples", 1000, "--learning-rate-factors", 1]
    command = [sys.executable, "-m", "launch.compare", *map(str, words)]

    def finish() -> dict:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    outcome = finish()
    absent = {"reranked"} | ({"sentence_transformers"} if peer_absence() else set())
    assert outcome["left_out"].keys() == absent
    systems = {"bm25", "bm25_anserini", "untrained", "nce", "sentence_transformers", "graded", "fusion"} - absent
    with open(tmp_path / "table" / "table.csv", newline="") as opened:
        rows = list(csv.DictReader(opened))
    values = {(row["system"], row["metric"]): float(row["value"]) for row in rows if row["seed"] == "all"}
    for metric in ("ndcg@10", "recall@10", "recall@100"):
        assert {system for system, measured in values if measured == metric} == systems
    # 3 steps of 64 pairs are 192 documents: as many as 3 steps of 16 queries with 4 documents each.
    assert values["graded", "best_step"] == values["nce", "best_step"] == 3

    def tower(system: str) -> list[np.ndarray]:
        """Returns the weights that are measured. Three steps change them, but hardly the order of the documents."""
        (run,) = (tmp_path / "table" / "runs").glob(f"{system}-*-0-1/run")
        return jax.tree.leaves(restore_parameters(run, which="best")["tower"])

    for system in systems & {"nce", "graded", "sentence_transformers"}:
        pairs = zip(tower("untrained"), tower(system), strict=True)
        assert not all(np.array_equal(before, after) for before, after in pairs), system
    page = (tmp_path / "table" / "report.html").read_text()
    assert "NDCG@10 (judged)" in page
    assert "Beside the paper" not in page
    cells = outcome["cells"] | {"ran": 0, "taken_over": outcome["cells"]["finished"]}
    assert finish() == outcome | {"cells": cells}
