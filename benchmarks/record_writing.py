"""Measures the speed and memory of data.write_records by the number of worker processes.

Log tables and labels are made up: documents have 24 words, and queries have labels_per_query labels of all levels, with
documents drawn from Zipf's law. Runs of the program with one and with two workers alternate, so that other work of the
machine affects both. Rates are by the clock and by the processor time of all processes. The memory is the maximum of
the sum of the proportional set sizes of all processes of a run; a file that several processes map counts once.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from crops_jax import program
from crops_jax.errors import NamedFailure
from crops_jax.storage import InputPath

_SAMPLE_SECONDS = 0.1
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class BenchmarkArguments:
    """The arguments of benchmarks.record_writing."""

    documents: int = 100_000
    """The number of documents."""
    labels: int = 1_000_000
    """The number of labels."""
    labels_per_query: int = 10
    """The number of labels of a query."""
    workers: str = "1,2"
    """The numbers of workers to compare."""
    rounds: int = 2
    """The number of runs for each number of workers."""
    tokenizer: InputPath | None = None
    """A tokenizer folder. By default a vocabulary of 4096 tokens is learnt once, before the clock starts."""


def benchmark(arguments: BenchmarkArguments) -> dict[str, Any]:
    """Measures data.write_records on made-up tables in a temporary folder."""
    counts = [int(number) for number in arguments.workers.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_tables(arguments, folder)
        tokenizer = arguments.tokenizer or _learn(folder)
        runs: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
        for _ in range(arguments.rounds):
            for count in counts:
                runs[count].append(_measure(folder, tokenizer, count))
    measured = {name: {str(count): _median(runs[count], name) for count in counts} for name in runs[counts[0]][0]}
    return {"documents": arguments.documents, "labels": arguments.labels, "rounds": arguments.rounds, **measured}


def _write_tables(arguments: BenchmarkArguments, folder: Path) -> None:
    print("making tables", file=sys.stderr)
    for name in ("logs", "labels"):
        (folder / name).mkdir()
    connection = duckdb.connect()
    word = "'w' || (floor(20000 * pow(random(), 3)))::INTEGER"
    words = f"list_aggregate(list_transform(range(24), lambda x: {word}), 'string_agg', ' ')"
    queries = -(-arguments.labels // arguments.labels_per_query)
    tables = {
        "logs/documents": f"SELECT 'd' || i AS doc_id, {words} AS title FROM range({arguments.documents}) t(i)",
        "logs/judgements": "SELECT 'query 0' AS query, 'd0' AS doc_id, 1.0 AS grade",
        "labels/labels": f"""
            SELECT query, doc_id, (max(level))::TINYINT AS level, 'search_log' AS source FROM (
                SELECT 'query ' || (i % {queries}) || ' of w' || (i % {queries}) % 997 AS query,
                       'd' || (floor({arguments.documents} * pow(random(), 2)))::INTEGER AS doc_id,
                       1 + (i // {queries}) % 5 AS level FROM range({arguments.labels}) t(i))
            GROUP BY query, doc_id""",
    }
    connection.execute("SELECT setseed(0.5)")
    for name, select in tables.items():
        connection.execute(f"COPY ({select}) TO '{folder / name}.parquet' (COMPRESSION zstd)")


def _learn(folder: Path) -> str:
    """Writes the records of one query, and returns the folder of their tokenizer."""
    (folder / "few").mkdir()
    rows = f"SELECT * FROM '{folder}/labels/labels.parquet' LIMIT 1"
    duckdb.sql(f"COPY ({rows}) TO '{folder}/few/labels.parquet'")
    _call("--labels", f"{folder}/few", "--logs", f"{folder}/logs", "--output", f"{folder}/learnt")
    return f"{folder}/learnt/tokenizer"


def _measure(folder: Path, tokenizer: str, workers: int) -> dict[str, float]:
    print(f"{workers} workers", file=sys.stderr)
    options = ("--labels", f"{folder}/labels", "--logs", f"{folder}/logs", "--output", f"{folder}/records")
    before, start = os.times(), time.perf_counter()
    outcome, memory = _call(*options, "--tokenizer", tokenizer, "--overwrite", "--workers", str(workers))
    clock, after = time.perf_counter() - start, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    records = outcome["train"] + outcome["dev"]
    return {
        "seconds": round(clock, 2),
        "processor_seconds": round(processor, 2),
        "records_per_second": round(records / clock),
        "records_per_processor_second": round(records / processor),
        "peak_mib": round(memory / _MIB),
    }


def _call(*arguments: str) -> tuple[dict[str, Any], int]:
    """Returns the outcome of a call of data.write_records and the maximum memory of its processes in bytes."""
    command = [sys.executable, "-m", "data.write_records", *arguments]
    with tempfile.TemporaryFile("w+") as errors:
        called = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        peak = 0
        while called.poll() is None:
            peak = max(peak, sum(map(_memory, _process_tree(called.pid))))
            time.sleep(_SAMPLE_SECONDS)
        if called.returncode:
            errors.seek(0)
            raise NamedFailure(f"{' '.join(command)} ended with {called.returncode}: {errors.read()[-2000:]}")
    assert called.stdout is not None
    return json.loads(called.stdout.read().splitlines()[-1]), peak


def _process_tree(pid: int) -> list[int]:
    """Returns a process and all processes that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(descendant for child in children for descendant in _process_tree(int(child)))]


def _memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def _median(runs: list[dict[str, float]], name: str) -> float:
    return round(statistics.median(run[name] for run in runs), 2)


if __name__ == "__main__":
    program.run(benchmark, example="python -m benchmarks.record_writing --workers 1,2")
