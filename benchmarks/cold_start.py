"""Compares the time of a whole training job with sentence-transformers: from the start of a process to a model in use.

    python benchmarks/cold_start.py --steps 20 1000

The job begins with the texts and the weights of MiniLM-L6 on disk. It trains for some steps of 64 pairs, writes a model
folder, and ends when a second process has loaded the folder and encoded a text. crops_jax runs launch.train and
launch.export on records; the time of data.write_records, which is needed once for any number of trainings, is part of
the job and also stands apart. "cold" has an empty cache of compiled programs, and "warm" the cache that the cold job
left. sentence-transformers runs benchmarks/train_sentence_transformers.py on the same pairs. The systems take turns.
The program prints one line of JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.interleaved import PEER_PYTHON, ROOT
from benchmarks.training import MAX_TOKENS, made_up_pairs, weights
from crops_jax.devices.processor import processor

_PAIRS_PER_BATCH = 64
_LEARNING_RATE = 2e-5
_LOAD_OURS = (
    "import sys; from crops_jax.pretrained import load_encoder; "
    "print(load_encoder(sys.argv[1]).encode_query(['red lamp']).shape)"
)
_LOAD_PEER = (
    "import sys; from sentence_transformers import SentenceTransformer; "
    "print(SentenceTransformer(sys.argv[1], device='cpu', local_files_only=True).encode(['red lamp']).shape)"
)


def write_texts(folder: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Writes the pairs as log tables of crops_jax (FOLDER/logs), and as a table for the peer (FOLDER/pairs.parquet)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    queries, documents = zip(*pairs, strict=True)
    # A query occurs once: sentence-transformers leaves no text twice in a batch.
    queries = [f"{query} {number}" for number, query in enumerate(queries)]
    ids = [f"d{number}" for number in range(len(documents))]
    (folder / "logs").mkdir()
    pq.write_table(pa.table({"doc_id": ids, "title": documents}), folder / "logs" / "documents.parquet")
    judgements = {"query": queries, "doc_id": ids, "grade": [1.0] * len(ids), "split": ["train"] * len(ids)}
    pq.write_table(pa.table(judgements), folder / "logs" / "judgements.parquet")
    pq.write_table(pa.table({"query": queries, "document": documents}), folder / "pairs.parquet")


def timed(command: Sequence[str | Path], environment: Mapping[str, str]) -> float:
    """Returns the seconds that a process takes. Ends this program if the process fails."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def prepared(folder: Path) -> float:
    """Makes the records of crops_jax (FOLDER/records), and returns the seconds of data.write_records."""
    logs, labels = str(folder / "logs"), str(folder / "labels")
    mine = ["--judgements-as-labels", "--grade-levels", "1=4", "--output", labels]
    timed([sys.executable, "-m", "data.mine", "--logs", logs, *mine], {})
    flags = ["--labels", labels, "--logs", logs, "--tokenizer", weights(), "--max-tokens", str(MAX_TOKENS)]
    flags += ["--dev-fraction", "0", "--num-shards", "1", "--output", str(folder / "records")]
    return timed([sys.executable, "-m", "data.write_records", *flags], {})


def ours(folder: Path, job: Path, *, steps: int, cache: Path) -> dict[str, float]:
    """Returns the seconds of each part of a job of crops_jax, whose outputs go into the new folder `job`."""
    job.mkdir()
    run, model = str(job / "run"), str(job / "model")
    environment = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    fields = {
        "encoder.weights": weights(),
        "encoder.max-query-tokens": MAX_TOKENS,
        "encoder.max-document-tokens": MAX_TOKENS,
        "data.queries-per-batch": _PAIRS_PER_BATCH,
        "data.documents-per-query": 1,
        "optimizer.learning-rate": _LEARNING_RATE,
        "training.steps": steps,
        "training.evaluate-every-steps": 0,
    }
    flags = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    records = ["--records", str(folder / "records"), "--output", run]
    return {
        "train": timed([sys.executable, "-m", "launch.train", "minilm", *flags, *records], environment),
        "export": timed([sys.executable, "-m", "launch.export", "--run", run, "--output", model], environment),
        "load": timed([sys.executable, "-c", _LOAD_OURS, model], environment),
    }


def peer(folder: Path, job: Path, *, steps: int) -> dict[str, float]:
    """Returns the seconds of each part of a job of sentence-transformers, whose output goes into the folder `job`."""
    flags = ["--weights", weights(), "--pairs", str(folder / "pairs.parquet"), "--steps", str(steps)]
    flags += ["--batch", str(_PAIRS_PER_BATCH), "--max-tokens", str(MAX_TOKENS), "--learning-rate", str(_LEARNING_RATE)]
    script = ROOT / "benchmarks" / "train_sentence_transformers.py"
    return {
        "train": timed([PEER_PYTHON, script, *flags, "--output", str(job)], {}),
        "load": timed([PEER_PYTHON, "-c", _LOAD_PEER, str(job)], {}),
    }


def compare(folder: Path, *, steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """Returns system -> part -> median seconds of the jobs of one length."""
    found: dict[str, list[dict[str, float]]] = {"crops_jax_cold": [], "crops_jax_warm": []}
    if PEER_PYTHON.exists():
        found["sentence_transformers"] = []
    for turn in range(rounds):
        name, cache = f"{steps}-{turn}", folder / f"cache-{steps}-{turn}"
        found["crops_jax_cold"].append(ours(folder, folder / f"cold-{name}", steps=steps, cache=cache))
        if "sentence_transformers" in found:
            found["sentence_transformers"].append(peer(folder, folder / f"peer-{name}", steps=steps))
        found["crops_jax_warm"].append(ours(folder, folder / f"warm-{name}", steps=steps, cache=cache))
        for system, jobs in found.items():
            print(f"{steps} steps, {system}: {jobs[-1]}", file=sys.stderr, flush=True)
    return {
        system: {part: round(statistics.median(job[part] for job in jobs), 1) for part in jobs[0]}
        for system, jobs in found.items()
    }


def measure(arguments: argparse.Namespace) -> dict:
    pairs = made_up_pairs(_PAIRS_PER_BATCH * min(max(arguments.steps), arguments.batches), tokens=arguments.tokens)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_texts(folder, pairs)
        records_seconds = prepared(folder)
        seconds = {str(steps): compare(folder, steps=steps, rounds=arguments.rounds) for steps in arguments.steps}
    whole = {
        steps: {
            system: round(sum(parts.values()) + (records_seconds if system.startswith("crops_jax") else 0.0), 1)
            for system, parts in systems.items()
        }
        for steps, systems in seconds.items()
    }
    return {
        "benchmark": "cold_start",
        "pairs": f"{len(pairs)} made up, mean {arguments.tokens} tokens",
        "batch": _PAIRS_PER_BATCH,
        "rounds": arguments.rounds,
        "processor": processor(),
        "cores": os.cpu_count(),
        "write_records_seconds": round(records_seconds, 1),
        "seconds": seconds,
        "whole_job_seconds": whole,
        "whole_job_against_sentence_transformers": {
            steps: {
                system: round(systems["sentence_transformers"] / total, 2)
                for system, total in systems.items()
                if system != "sentence_transformers"
            }
            for steps, systems in whole.items()
            if "sentence_transformers" in systems
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 1000], help="the numbers of steps of the jobs")
    parser.add_argument("--rounds", type=int, default=1, help="the number of jobs of each system and length")
    parser.add_argument("--tokens", type=float, default=60, help="the mean number of tokens of the documents")
    parser.add_argument(
        "--batches", type=int, default=100, help="the number of batches of pairs, which repeat in longer jobs"
    )
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
