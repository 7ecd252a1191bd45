"""Compares exact search with faiss IndexFlatIP on a CPU, and prints one line of JSON.

Both systems search the same random unit vectors, in turn (A B A B ...). Each has a process of its own that stays alive
and uses its default number of threads. The ratio is the ratio of the medians. faiss is installed in .venv-peers (make
peers); without it, the program prints only the rate of crops_jax.

    python benchmarks/exact_search.py --docs 100000 --dim 128 --queries 1000 --k 100
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.interleaved import PEER_PYTHON, System, alternate, medians, our_system, serve
from crops_jax.devices.processor import processor


def vectors(count: int, dim: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def serve_system(system: str, arguments: argparse.Namespace) -> None:
    """Searches in each turn, and returns the first document of each query."""
    docs, queries = vectors(arguments.docs, arguments.dim, 0), vectors(arguments.queries, arguments.dim, 1)
    search = _faiss(docs) if system == "faiss" else _crops_jax(docs)
    serve(lambda: {"first": search(queries, arguments.k)[:, 0].tolist()})


def _crops_jax(docs: np.ndarray):
    import jax.numpy as jnp

    from crops_jax.retrieval import exact_top_k

    documents = jnp.asarray(docs)
    return lambda queries, k: exact_top_k(queries, documents, k)[1]


def _faiss(docs: np.ndarray):
    import faiss

    index = faiss.IndexFlatIP(docs.shape[1])
    index.add(docs)
    return lambda queries, k: index.search(queries, k)[1]


def measure(arguments: argparse.Namespace) -> dict:
    """Returns the seconds of the searches of each system, measured in turn."""
    flags = [f"--{name}={getattr(arguments, name)}" for name in ("docs", "dim", "queries", "k")]
    systems = {"crops_jax": our_system(__file__, flags)}
    if PEER_PYTHON.exists():
        systems["faiss"] = System(python=PEER_PYTHON, command=[__file__, "--serve=faiss", *flags])
    answers = alternate(systems, rounds=arguments.rounds)
    median_seconds = medians(answers)
    outcome = {
        "benchmark": "exact_search",
        "docs": arguments.docs,
        "dim": arguments.dim,
        "queries": arguments.queries,
        "k": arguments.k,
        "vectors": "random unit",
        "rounds": arguments.rounds,
        "processor": processor(),
        "cores": os.cpu_count(),
        "median_seconds": median_seconds,
        "queries_per_second": {
            system: round(arguments.queries / seconds, 1) for system, seconds in median_seconds.items()
        },
    }
    if "faiss" in median_seconds:
        outcome["speed_against_faiss"] = round(median_seconds["faiss"] / median_seconds["crops_jax"], 3)
        first = {name: answers[name][-1]["first"] for name in median_seconds}
        outcome["same_first_document"] = float(np.mean(np.equal(first["faiss"], first["crops_jax"])))
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, description in (
        ("docs", 100_000, "the number of documents"),
        ("dim", 128, "the dimension of the vectors"),
        ("queries", 1000, "the number of queries"),
        ("k", 100, "the number of documents to return for each query"),
        ("rounds", 5, "the number of turns of each system"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=description)
    parser.add_argument("--serve", choices=("crops_jax", "faiss"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve_system(arguments.serve, arguments)
    else:
        print(json.dumps(measure(arguments)))


if __name__ == "__main__":
    main()
