"""Measures how many records per second are written, read, parsed and assembled into batches.

Records are made up and have the size of the records of a small search log: 8 documents with 20 tokens of text, and 12
labels for each query. Each rate is printed by the clock and by processor time. On a busy machine only the rate by
processor time measures the work of one core; it does not include worker processes.
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


def benchmark(arguments: BenchmarkArguments) -> dict[str, Any]:
    """Measures the input pipeline on made-up records in a temporary folder."""
    examples = _examples(arguments)
    size = len(encode_record(examples[0]))
    with tempfile.TemporaryDirectory() as path:
        rates = {"write": _rate(lambda: write_records(path, examples, num_shards=4)["records"])}
        source = RecordSource(path)
        files: TFRecordFiles = source._files
        data = [files[i] for i in range(len(files))]
        rates["index"] = _rate(lambda: sum(len(scan(files.locate(i)[0])) - 1 for i in _first_records(files)))
        rates["read"] = _rate(lambda: sum(1 for i in range(len(files)) if files[i]))
        rates["parse"] = _rate(lambda: sum(1 for content in data if decode_record(content)))
        rates["batches"] = _batches(source, arguments)
    return {
        "records": arguments.records,
        "bytes_per_record": size + len(frame(b"")),
        "workers": arguments.workers,
        "records_per_second": {name: round(clock) for name, (clock, _) in rates.items()},
        "records_per_processor_second": {name: round(processor) for name, (_, processor) in rates.items()},
    }


def _batches(source: RecordSource, arguments: BenchmarkArguments) -> tuple[float, float]:
    data = {"queries_per_batch": arguments.queries_per_batch, "workers": arguments.workers}
    feed = batches(source, Config().replace(data=data), num_steps=arguments.records // arguments.queries_per_batch + 1)
    next(feed)  # The first batch starts threads or processes.
    return _rate(lambda: sum(len(batch.query_tokens) for batch in feed))


def _examples(arguments: BenchmarkArguments) -> list[QueryRecord]:
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
