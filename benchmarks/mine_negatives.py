"""Measures time and memory of launch.mine_negatives, and prints one line of JSON.

The inputs are shards of random unit vectors, as launch.embed writes them, and a label table with --positives positives
for each query. The benchmark runs the program launch.mine_negatives in a process of its own. The memory is the maximum
of the process's anonymous resident memory (RssAnon): it excludes the mapped vectors, and includes the memory of Python,
JAX and DuckDB.

    python benchmarks/mine_negatives.py --queries 4000 --docs 200000 --dim 384
    python benchmarks/mine_negatives.py --queries 100000 --docs 1000000 --dim 384

A first run has a quarter of the queries, so that the rate is that of the additional queries, without the start.
--scale-to QUERIES DOCS prints the time that this rate would need for another size. It is an extrapolation, not a
measurement.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.interleaved import ROOT
from crops_jax.devices.processor import processor

SHARD_ROWS = 32_768


def write_embeddings(path: Path, *, prefix: str, rows: int, dim: int, tower: str, seed: int) -> None:
    """Writes random unit vectors with the files and the manifest of launch.embed."""
    from crops_jax import artifacts
    from crops_jax.embeddings import Layout, write_shard

    random, layout = np.random.default_rng(seed), Layout(rows=rows, dim=dim, shard_rows=SHARD_ROWS)
    path.mkdir()
    manifest = artifacts.new_manifest(
        program="launch.embed",
        kind="embeddings",
        arguments={"tower": tower},
        inputs={},
        layout=layout._asdict(),
        encoder="random unit vectors",
    )
    artifacts.write_manifest(path, manifest)
    for shard in range(layout.shards):
        first, last = layout.bounds(shard)
        vectors = random.standard_normal((last - first, dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        write_shard(path, layout, shard, ids=[f"{prefix}{row}" for row in range(first, last)], vectors=vectors)


def write_labels(path: Path, *, queries: int, docs: int, positives: int, seed: int) -> None:
    from data.labels.assign_levels import LABEL_SCHEMA

    random = np.random.default_rng(seed)
    query = np.repeat(np.arange(queries), positives)
    # The documents of a query are distinct: a random document and its neighbours.
    document = (random.integers(0, docs, queries)[:, None] + np.arange(positives)).ravel() % docs
    rows = len(query)
    columns = {
        "query": [f"q{number}" for number in query],
        "doc_id": [f"d{number}" for number in document],
        "level": np.full(rows, 4, np.int8),
        "source": ["search_log"] * rows,
        "score": pa.nulls(rows, pa.float64()),
        "evidence": pa.nulls(rows, pa.string()),
    }
    path.mkdir()
    pq.write_table(pa.table(columns, LABEL_SCHEMA), path / "labels.parquet")


def measure(arguments: argparse.Namespace, folder: Path) -> dict:
    sizes = {"queries": arguments.queries, "docs": arguments.docs}
    write_embeddings(folder / "queries", prefix="q", rows=arguments.queries, dim=arguments.dim, tower="query", seed=1)
    write_embeddings(folder / "documents", prefix="d", rows=arguments.docs, dim=arguments.dim, tower="document", seed=2)
    write_labels(folder / "labels", **sizes, positives=arguments.positives, seed=3)
    few = max(1, arguments.queries // 4)
    write_labels(folder / "few", queries=few, docs=arguments.docs, positives=arguments.positives, seed=3)
    few_seconds, _, _ = _run(arguments, folder, labels="few")
    seconds, peak, outcome = _run(arguments, folder, labels="labels")
    # Both times include the start and the checks, so their difference does not.
    seconds_per_pair = (seconds - few_seconds) / ((arguments.queries - few) * arguments.docs)
    result = {
        "benchmark": "mine_negatives",
        **sizes,
        "dim": arguments.dim,
        "top": arguments.top,
        "positives_of_a_query": arguments.positives,
        "search": outcome["search"]["kind"],
        "vectors": "random unit",
        "processor": processor(),
        "cores": os.cpu_count(),
        "mined": outcome["mined"],
        "seconds": round(seconds, 1),
        "seconds_of_a_quarter": round(few_seconds, 1),
        "pairs_per_second": round(1 / seconds_per_pair) if seconds_per_pair > 0 else None,
        "embeddings_gb": round(4e-9 * arguments.dim * sum(sizes.values()), 3),
        "peak_gb_beside_embeddings": round(peak / 1e9, 3),
    }
    if arguments.scale_to:
        queries, docs = arguments.scale_to
        total = seconds + seconds_per_pair * (queries * docs - arguments.queries * arguments.docs)
        result["extrapolated"] = {"queries": queries, "docs": docs, "minutes": round(total / 60, 1), "measured": False}
    return result


def _run(arguments: argparse.Namespace, folder: Path, *, labels: str) -> tuple[float, int, dict]:
    """Returns seconds, maximum anonymous memory in bytes and outcome of one run of launch.mine_negatives."""
    command = [sys.executable, "-m", "launch.mine_negatives", "--level", "1", "--top", str(arguments.top)]
    command += ["--labels", str(folder / labels), "--query-embeddings", str(folder / "queries")]
    command += ["--document-embeddings", str(folder / "documents"), "--output", str(folder / f"{labels}-mined")]
    command += ["--search", arguments.search]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    peak = _peak_anonymous_bytes(process)
    outcome = json.loads(process.communicate()[0].splitlines()[-1])
    return time.perf_counter() - start, peak, outcome


def _peak_anonymous_bytes(process: subprocess.Popen) -> int:
    """Returns the maximum RssAnon of a process, sampled every 20 ms until it ends."""
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        lines = status.read_text().splitlines() if status.exists() else []
        peak = max([peak, *(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))])
        time.sleep(0.02)
    if process.returncode:
        sys.exit(f"launch.mine_negatives ended with status {process.returncode}")
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, description in (
        ("queries", 4000, "the number of queries"),
        ("docs", 200_000, "the number of documents"),
        ("dim", 384, "the dimension of the vectors"),
        ("top", 100, "--top of launch.mine_negatives"),
        ("positives", 3, "the number of positives of a query"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=description)
    parser.add_argument(
        "--search", choices=("exact", "scann"), default="exact", help="--search of launch.mine_negatives"
    )
    parser.add_argument(
        "--scale-to",
        type=int,
        nargs=2,
        metavar=("QUERIES", "DOCS"),
        help="also print the extrapolated time for this size",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments, Path(folder))))


if __name__ == "__main__":
    main()
