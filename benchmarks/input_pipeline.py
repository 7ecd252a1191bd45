"""Measures how many records per second are written, read, parsed and assembled into batches.

Records are made up and have the size of the records of a small search log: 8 documents with 20 tokens of text, and 12
labels for each query. Each rate is printed by the clock and by processor time. On a busy machine only the rate by
processor time measures the work of one core; it does not include worker processes.

With --processes, the batches are those of the first of so many processes, and the records that it reads are counted.
With --delay-ms, every read waits as long, as on a file system of the network, and the share of time is measured that a
step of --step-seconds waits for its batch.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from crops_jax import program
from crops_jax.config import Config
from crops_jax.input_pipeline import batches
from crops_jax.records import QueryRecord, RecordSource, decode_record, encode_record, write_records
from crops_jax.records.tfrecord import TFRecordFiles, frame, scan


@dataclass(frozen=True, kw_only=True)
class BenchmarkArguments:
    """The arguments of benchmarks.input_pipeline."""

    records: int = 20_000
    """The number of records."""
    documents: int = 8
    """The number of documents with text of a record."""
    document_tokens: int = 20
    """The number of tokens of a document."""
    labels: int = 12
    """The number of labels of a record."""
    queries_per_batch: int = 256
    """The number of queries in a batch."""
    workers: int = 0
    """The number of worker processes of the batches."""
    processes: int = 1
    """The number of processes that share a batch."""
    read_threads: int = 1
    """The number of records that a process reads at once."""
    delay_ms: float = 0.0
    """The time in milliseconds that every read of a record waits."""
    step_seconds: float = 0.0
    """The time in seconds that a step of training takes between two batches."""


def benchmark(arguments: BenchmarkArguments) -> dict[str, Any]:
    """Measures the input pipeline on made-up records in a temporary folder."""
    made = examples(arguments)
    size = len(encode_record(made[0]))
    with tempfile.TemporaryDirectory() as path:
        rates = {"write": _rate(lambda: write_records(path, made, num_shards=4)["records"])}
        source = RecordSource(path)
        files: TFRecordFiles = source._files
        data = [files[i] for i in range(len(files))]
        rates["index"] = _rate(lambda: sum(len(scan(files.locate(i)[0])) - 1 for i in _first_records(files)))
        rates["read"] = _rate(lambda: sum(1 for i in range(len(files)) if files[i]))
        rates["parse"] = _rate(lambda: sum(1 for content in data if decode_record(content)))
        rates["batches"], a_batch = _batches(path, arguments)
    return {
        "records": arguments.records,
        "bytes_per_record": size + len(frame(b"")),
        "workers": arguments.workers,
        "a_batch": a_batch,
        "records_per_second": {name: round(clock) for name, (clock, _) in rates.items()},
        "records_per_processor_second": {name: round(processor) for name, (_, processor) in rates.items()},
    }


class _SlowSource(RecordSource):
    """Records of which every read waits and is counted."""

    def __init__(self, path: str, *, delay_seconds: float):
        super().__init__(path)
        self.delay_seconds, self.read_records = delay_seconds, 0

    def __getitem__(self, index: int) -> QueryRecord:
        if self.delay_seconds:  # a sleep of 0 s would still give the processor away
            time.sleep(self.delay_seconds)
        self.read_records += 1
        return super().__getitem__(index)


def _batches(path: str, arguments: BenchmarkArguments) -> tuple[tuple[float, float], dict[str, float]]:
    """Returns the rates of the batches of the first process, and what a batch takes."""
    source = _SlowSource(path, delay_seconds=arguments.delay_ms / 1000)
    names = ("queries_per_batch", "workers", "read_threads")
    config = Config().replace(data={name: getattr(arguments, name) for name in names})
    steps = arguments.records // arguments.queries_per_batch + 1
    share = {"groups": arguments.processes, "own_groups": [0]}
    feed = batches(source, config, num_steps=steps, **share)
    next(feed)  # The first batch starts threads or processes.
    waited = 0.0

    def read() -> int:
        nonlocal waited
        queries = 0
        for _ in range(steps - 1):
            if arguments.step_seconds:
                time.sleep(arguments.step_seconds)
            before = time.perf_counter()
            queries += len(next(feed).query_tokens)
            waited += time.perf_counter() - before
        return queries

    started = time.perf_counter()
    rates = _rate(read)
    seconds = time.perf_counter() - started
    return rates, {
        "processes": arguments.processes,
        "read_threads": arguments.read_threads,
        "delay_ms": arguments.delay_ms,
        "step_seconds": arguments.step_seconds,
        "records": round(source.read_records / steps),
        "seconds": round(seconds / (steps - 1), 4),
        "wait_share": round(waited / seconds, 4),
    }


def examples(arguments: BenchmarkArguments) -> list[QueryRecord]:
    """Returns made-up records of the sizes that the arguments say."""
    random = np.random.default_rng(0)

    def numbers(*shape: int, high: int = 30_000) -> np.ndarray:
        return random.integers(1, high, shape, dtype=np.int32)

    def random_record() -> QueryRecord:
        documents = tuple(numbers(arguments.document_tokens) for _ in range(arguments.documents))
        return QueryRecord(
            query_tokens=numbers(6),
            document_ids=numbers(arguments.documents, 2),
            document_levels=numbers(arguments.documents, high=6),
            document_tokens=documents,
            labelled_ids=numbers(arguments.labels, 2),
            labelled_levels=numbers(arguments.labels, high=6),
        )

    print(f"making {arguments.records} records", file=sys.stderr)
    return [random_record() for _ in range(arguments.records)]


def _first_records(files: TFRecordFiles) -> list[int]:
    """Returns the index of the first record of each file."""
    return [i for i in range(len(files)) if files.locate(i)[1] == 0]


def _rate(work: Callable[[], int]) -> tuple[float, float]:
    """Returns the records per second, by the clock and by the processor time of this process."""
    clock, processor = time.perf_counter(), time.process_time()
    records = work()
    return records / (time.perf_counter() - clock), records / (time.process_time() - processor)


if __name__ == "__main__":
    program.run(benchmark, example="python -m benchmarks.input_pipeline --workers 2")
