"""Measures what the score of a Poly-encoder costs beside one dot product, and prints one line of JSON.

Two tasks are measured for each number of codes: reranking the first documents of a query, and scoring all documents and
selecting the first. The dot product has the same tasks, with one vector of a query (crops_jax.retrieval.exact). Vectors
are random unit vectors, so the cost of the towers is left out; it is the same for both. All tasks run in one process in
turn (A B C A B C ...), and the seconds of a query are medians over the rounds. A first round, in which programs
compile, is omitted.

    python -m benchmarks.poly_encoder --docs 60000 --dim 128 --queries 64
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from crops_jax.devices.processor import processor
from crops_jax.retrieval import exact_top_k
from crops_jax.retrieval.exact import inner_products
from crops_jax.retrieval.poly_encoder import poly_scores_at, poly_top_k

CODES = (16, 64, 360)
_TEMPERATURE = 0.05


def unit_vectors(*shape: int, seed: int) -> np.ndarray:
    """Returns random unit vectors, float32; the last dimension is that of a vector."""
    values = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def tasks(arguments: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Returns what is measured, by name: each call answers all queries."""
    docs = unit_vectors(arguments.docs, arguments.dim, seed=0)
    placed = jnp.asarray(docs)
    queries = unit_vectors(arguments.queries, arguments.dim, seed=1)
    first = exact_top_k(queries, placed, arguments.depth)[1]
    rows = np.repeat(np.arange(arguments.queries), arguments.depth)
    found: dict[str, Callable[[], object]] = {
        "dot_product_rerank": lambda: inner_products(queries[rows], docs[first.ravel()]),
        "dot_product_all": lambda: exact_top_k(queries, placed, arguments.depth),
    }
    for codes in CODES:
        contexts = unit_vectors(arguments.queries, codes, arguments.dim, seed=codes)
        found[f"codes_{codes}_rerank"] = lambda contexts=contexts: poly_scores_at(
            contexts, docs, first, temperature=_TEMPERATURE
        )
        found[f"codes_{codes}_all"] = lambda contexts=contexts: poly_top_k(
            contexts, docs, arguments.depth, temperature=_TEMPERATURE
        )
    return found


def measure(arguments: argparse.Namespace) -> dict:
    """Returns the median seconds of a query of each task, and their ratios to the dot product."""
    seconds: dict[str, list[float]] = {}
    measured = tasks(arguments)
    for turn in range(arguments.rounds + 1):
        for name, task in measured.items():
            start = time.perf_counter()
            task()
            if turn:
                seconds.setdefault(name, []).append((time.perf_counter() - start) / arguments.queries)
        print(f"round {turn} of {arguments.rounds}", file=sys.stderr, flush=True)
    median = {name: statistics.median(turns) for name, turns in seconds.items()}
    return {
        "benchmark": "poly_encoder",
        **{name: getattr(arguments, name) for name in ("docs", "dim", "queries", "depth", "rounds")},
        "device": jax.devices()[0].device_kind,
        "processor": processor(),
        "cores": os.cpu_count(),
        "seconds_per_query": {name: float(f"{value:.4g}") for name, value in median.items()},
        "times_a_dot_product": {
            name: round(value / median[f"dot_product_{name.rsplit('_', 1)[1]}"], 1)
            for name, value in median.items()
            if name.startswith("codes")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, description in (
        ("docs", 60_000, "the number of documents"),
        ("dim", 128, "the dimension of the vectors"),
        ("queries", 64, "the number of queries"),
        ("depth", 200, "the number of documents that are reranked, and selected among all"),
        ("rounds", 5, "the number of turns of each task"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=description)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
