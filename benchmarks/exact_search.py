"""Exact search against faiss IndexFlatIP on CPU: one line of JSON.

Both search the same random unit vectors, in turn (A B A B ...), each in a process of its own that stays alive, with
the threads that it takes by itself; the ratio is that of the medians. faiss lives in .venv-peers (make peers); without
it only our rate is printed.

    python benchmarks/exact_search.py --docs 100000 --dim 128 --queries 1000 --k 100
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

PEER_PYTHON = Path(__file__).parent.parent / ".venv-peers" / "bin" / "python"


def vectors(count: int, dim: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def serve(system: str, arguments: argparse.Namespace) -> None:
    """Answers each line of standard input with the seconds of one search and a digest of what was found."""
    docs, queries = vectors(arguments.docs, arguments.dim, 0), vectors(arguments.queries, arguments.dim, 1)
    search = _faiss(docs) if system == "faiss" else _ours(docs)
    search(queries, arguments.k)
    for _ in sys.stdin:
        start = time.perf_counter()
        indices = search(queries, arguments.k)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "first": indices[:, 0].tolist()}), flush=True)


def _ours(docs: np.ndarray):
    import jax.numpy as jnp

    from crops_jax.retrieval import exact_top_k

    held = jnp.asarray(docs)
    return lambda queries, k: exact_top_k(queries, held, k)[1]


def _faiss(docs: np.ndarray):
    import faiss

    index = faiss.IndexFlatIP(docs.shape[1])
    index.add(docs)
    return lambda queries, k: index.search(queries, k)[1]


def measure(arguments: argparse.Namespace) -> dict:
    """Seconds of each system's searches, measured in turn."""
    pythons = {"crops_jax": Path(sys.executable)} | ({"faiss": PEER_PYTHON} if PEER_PYTHON.exists() else {})
    flags = [f"--{name}={getattr(arguments, name)}" for name in ("docs", "dim", "queries", "k")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    servers = {
        system: subprocess.Popen(
            [python, __file__, "--serve", system, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for system, python in pythons.items()
    }
    seconds: dict[str, list[float]] = {system: [] for system in servers}
    first: dict[str, list[int]] = {}
    for _ in range(arguments.rounds):
        for system, server in servers.items():
            print("search", file=server.stdin, flush=True)
            answer = json.loads(server.stdout.readline())
            seconds[system].append(answer["seconds"])
            first[system] = answer["first"]
    for server in servers.values():
        server.stdin.close()
        server.wait()
    medians = {system: statistics.median(found) for system, found in seconds.items()}
    outcome = {
        "benchmark": "exact_search",
        "docs": arguments.docs,
        "dim": arguments.dim,
        "queries": arguments.queries,
        "k": arguments.k,
        "vectors": "random unit",
        "rounds": arguments.rounds,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "median_seconds": medians,
        "queries_per_second": {system: round(arguments.queries / found, 1) for system, found in medians.items()},
    }
    if "faiss" in medians:
        outcome["speed_against_faiss"] = round(medians["faiss"] / medians["crops_jax"], 3)
        outcome["same_first_document"] = float(np.mean(np.equal(first["faiss"], first["crops_jax"])))
    return outcome


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("docs", 100_000), ("dim", 128), ("queries", 1000), ("k", 100), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--serve", choices=("crops_jax", "faiss"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments)
    else:
        print(json.dumps(measure(arguments)))


if __name__ == "__main__":
    main()
