"""Measures batches of records in a bucket, read by ranges, in turn with batches of the same records on the disk.

The bucket is that of benchmarks.object_server, a process on this machine that answers each request after --delay-ms.
The turns are disk, bucket, disk, bucket ... and each begins with a batch that is not measured. Between two batches, a
step of training is a pause of --step-seconds. The records are those of benchmarks.input_pipeline.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.input_pipeline import BenchmarkArguments as RecordArguments
from benchmarks.input_pipeline import examples
from crops_jax import program
from crops_jax.config import Config
from crops_jax.input_pipeline import batches
from crops_jax.records import RecordSource, write_records
from crops_jax.storage.inputs import local_copy

_DISTINCT = 5000


@dataclass(frozen=True, kw_only=True)
class BenchmarkArguments:
    """The arguments of benchmarks.records_in_bucket."""

    records: int = 50_000
    """The number of records, of about a kilobyte each. They are 5,000 different ones, again and again."""
    queries_per_batch: int = 256
    """The number of queries in a batch."""
    processes: int = 1
    """The number of processes that share a batch. The first one is measured."""
    workers: int = 0
    """The number of worker processes."""
    read_threads: int = 0
    """The number of ranges that are read at once; 0: the default of training."""
    delay_ms: float = 30.0
    """The time in milliseconds that every request waits."""
    step_seconds: float = 1.0
    """The time in seconds that a step of training takes between two batches."""
    turns: int = 3
    """The number of turns of the disk and of the bucket."""
    steps: int = 8
    """The number of batches that are measured in a turn."""


def benchmark(arguments: BenchmarkArguments) -> dict[str, Any]:
    """Measures the disk and the bucket in turn, with made-up records in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder), delay_ms=arguments.delay_ms) as counts:
        distinct = examples(RecordArguments(records=min(_DISTINCT, arguments.records)))
        written = (distinct[number % len(distinct)] for number in range(arguments.records))
        write_records(Path(folder) / "records", written, num_shards=4)
        os.environ["CROPS_CACHE"] = f"{folder}/.cache"
        sources = {
            "disk": RecordSource(Path(folder) / "records"),
            "bucket": RecordSource(local_copy("s3://bucket/records", shards=False)),
        }
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in sources}
        for turn in range(arguments.turns):
            for name, source in sources.items():
                turns[name].append(_turn(source, arguments, first=turn * (arguments.steps + 1), counts=counts))
                print(name, turns[name][-1], file=sys.stderr)
    rows = [{"source": name, **_means(measured)} for name, measured in turns.items()]
    return {"arguments": vars(arguments), "rows": rows}


def _turn(
    source: RecordSource, arguments: BenchmarkArguments, *, first: int, counts: Callable[[], dict[str, int]]
) -> dict[str, float]:
    """Returns what a batch of one turn takes."""
    names = ("queries_per_batch", "workers", "read_threads")
    config = Config().replace(data={name: getattr(arguments, name) for name in names})
    share = {"groups": arguments.processes, "own_groups": [0]}
    steps = arguments.steps
    feed = batches(source, config, start_step=first, num_steps=first + steps + 1, **share)
    counts()
    processor, waited = time.process_time(), 0.0
    next(feed)
    started = time.perf_counter()
    for _ in range(steps):
        time.sleep(arguments.step_seconds)
        before = time.perf_counter()
        next(feed)
        waited += time.perf_counter() - before
    seconds = time.perf_counter() - started
    read = counts()
    return {
        "seconds": seconds / steps,
        "wait_share": waited / seconds,
        "processor_seconds": (time.process_time() - processor) / (steps + 1),
        "requests": read["requests"] / (steps + 1),
        "megabytes": read["bytes"] / (steps + 1) / 1e6,
    }


def _means(turns: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(sum(turn[name] for turn in turns) / len(turns), 4) for name in turns[0]}


@contextlib.contextmanager
def _server(folder: Path, *, delay_ms: float) -> Iterator[Callable[[], dict[str, int]]]:
    """Serves a folder as s3://bucket, and yields a function that gives the reads since its previous call."""
    command = [sys.executable, "-m", "benchmarks.object_server", str(folder), "--delay-ms", str(delay_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        stdin, stdout = server.stdin, server.stdout
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{int(stdout.readline())}"
        os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}

        def counts() -> dict[str, int]:
            print("counts", file=stdin, flush=True)
            return json.loads(stdout.readline())

        try:
            yield counts
        finally:
            stdin.close()


if __name__ == "__main__":
    program.run(benchmark, example="python -m benchmarks.records_in_bucket --records 6000 --queries-per-batch 1024")
