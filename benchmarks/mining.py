"""Measures time and memory of data.mine on 1 M and on 10 M log events, and whether the time per event grows.

The logs are made up (benchmarks.made_up_log). `python -m data.mine` mines each log once on DuckDB, including all checks
of the input and the fitting of the lexical relevance discriminator (theta). On a busy machine only the processor time
measures the cost of the work; the load in the output shows how busy the machine was. With --discriminator RUN, the rate
at which this discriminator scores pairs of the log is measured separately.

Targets: 10 M events on 2 cores in 300 s and 4 GB; a ratio of time per event of at most 1.15.
"""

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.made_up_log import write_log
from crops_jax import program
from crops_jax.errors import InputError, NamedFailure
from crops_jax.storage import InputPath, LocalPath
from crops_jax.text import document_text

_MIN_EVENTS = 10_000


@dataclass(frozen=True, kw_only=True)
class BenchmarkArguments:
    """The arguments of benchmarks.mining."""

    events: tuple[int, ...] = (1_000_000, 10_000_000)
    """The sizes of the logs in events."""
    cores: int = 2
    """The number of processor cores that mining can use."""
    memory_limit: str = "2GB"
    """The memory limit of DuckDB. The memory of Python is additional."""
    seed: int = 0
    """The seed of the logs."""
    folder: LocalPath | None = None
    """The folder to keep the logs and labels in. The default is a temporary folder that is removed."""
    discriminator: InputPath | None = None
    """The folder of a cross-encoder (or of another discriminator), whose rate is measured."""
    scored_pairs: int = 2_000
    """The number of pairs that --discriminator scores."""


def benchmark(arguments: BenchmarkArguments) -> dict[str, Any]:
    """Measures data.mine on made-up logs of several sizes."""
    if not arguments.events or min(arguments.events) < _MIN_EVENTS:
        raise InputError(f"--events {arguments.events}: every size must be at least {_MIN_EVENTS}")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.folder or temporary)
        runs = [_mine(arguments, folder, events) for events in sorted(arguments.events)]
        smallest = folder / f"logs-{min(arguments.events)}"
        rate = None if arguments.discriminator is None else _pair_rate(arguments, smallest)
    first, last = runs[0], runs[-1]
    ratios = {
        f"{name}_per_event": round(last[name] / last["events"] / (first[name] / first["events"]), 3)
        for name in ("seconds", "processor_seconds")
    }
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_limit": arguments.memory_limit,
        "runs": runs,
        "ratio": {"of": [last["events"], first["events"]], **ratios},
        "discriminator_pairs_per_second": rate,
    }


def _mine(arguments: BenchmarkArguments, folder: Path, size: int) -> dict[str, Any]:
    logs, labels = folder / f"logs-{size}", folder / f"labels-{size}"
    print(f"writing a log of {size} events", file=sys.stderr)
    rows = write_log(logs, events=size, seed=arguments.seed, memory_limit=arguments.memory_limit)
    command = [sys.executable, "-m", "data.mine", "--logs", str(logs), "--output", str(labels)]
    load, started = os.getloadavg()[0], time.perf_counter()
    outcome, usage = _run([*command, "--memory-limit", arguments.memory_limit], folder / "outcome.json")
    seconds = time.perf_counter() - started
    return {
        "events": rows["searches"] + rows["candidates"] + rows["feed_views"],
        "rows": rows,
        "labels": outcome["rows"],
        "scored_pairs": sum(outcome[name]["candidates"] for name in ("query_level", "system_level")),
        "seconds": round(seconds, 2),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_rss_gb": round(usage.ru_maxrss * 1024 / 1e9, 3),
        "load_before": round(load, 2),
    }


def _run(command: list[str], output: Path) -> tuple[dict[str, Any], Any]:
    """Returns the outcome line of a program and the resources that it used. Its messages go to standard error."""
    with open(output, "wb") as file:
        redirected = [(os.POSIX_SPAWN_DUP2, file.fileno(), 1)]
        child = os.posix_spawn(command[0], command, os.environ, file_actions=redirected)
        _, status, usage = os.wait4(child, 0)
    if status:
        raise NamedFailure(f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}")
    return json.loads(output.read_text().splitlines()[-1]), usage


def _pair_rate(arguments: BenchmarkArguments, logs: Path) -> float:
    from crops_jax.discriminator import load

    assert arguments.discriminator is not None
    theta = load(arguments.discriminator)
    documents = pq.read_table(logs / "documents.parquet").slice(0, arguments.scored_pairs).to_pylist()
    queries = pq.read_table(logs / "searches.parquet").column("query").slice(0, len(documents)).to_pylist()
    pairs = min(len(queries), len(documents))
    texts = [document_text(document) for document in documents[:pairs]]
    theta.score(queries[:pairs], texts)  # The first call compiles.
    started = time.perf_counter()
    theta.score(queries[:pairs], texts)
    return round(pairs / (time.perf_counter() - started), 1)


if __name__ == "__main__":
    program.run(benchmark, example="python -m benchmarks.mining --events 1000000 10000000")
