"""Checks whether two commits write the same bytes from the same seeds, in all programs from made-up logs to the pages.

    python -m benchmarks.same_results record BEFORE.json    # at one commit
    python -m benchmarks.same_results record AFTER.json     # at another one, on the same machine
    python -m benchmarks.same_results compare BEFORE.json AFTER.json

`record` calls the programs by their command lines in a work directory, and records a SHA-256 of each file that they
write, of each array in a checkpoint and of each outcome line. It imports no module of this project, so that this file
can be copied into a checkout of any commit. `compare` names the artefacts that differ, are missing or are new, and
exits with status 0 only if all are equal. With --work DIR the files are kept, so that differences can be inspected.

Files are compared byte for byte. MASKS and LEFT_OUT list the parts that the clock or a random choice decides, with the
reason. The results do not depend on the work directory, because programs run in it with relative paths.
"""

import argparse
import contextlib
import fnmatch
import hashlib
import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_DAILY = "data.mine --logs logs --discriminator split/discriminator --state state --output days/labels"
_CADENCE = "--training.log-every-steps 1 --training.evaluate-every-steps 3 --training.checkpoint-every-steps 3"
_FEW = f"--training.steps 3 {_CADENCE} --encoder.layers 1 --data.queries-per-batch 32"
_INSPECTED = ("logs", "split", "all/labels", "all/records", "all/run", "all/vectors", "all/evaluation", "all/exported")

# Each line is one call: the name of its outcome, the program and its arguments. data.inspect is called with absolute
# paths, because older commits read checkpoints only by those.
ROAD = f"""
simulate: data.simulate --output logs --documents 400 --queries 150 --users 300 --first-day 2024-03-04 --days 3
hold_out: data.hold_out --logs logs --from 2024-03-06 --output split
hold_out_groups: data.hold_out --logs logs --fraction 0.25 --by group --output split_groups
mine_log: data.mine --logs split --perspectives search_log --min-supporters 2 --partitions 3 --output log/labels
mine_all: data.mine --logs split --output all/labels
mine_day_4: {_DAILY} --perspectives search_log,query_level,system_level --day 2024-03-04
mine_day_5: {_DAILY} --perspectives search_log,query_level,system_level --day 2024-03-05
records: data.write_records --labels all/labels --logs split --max-tokens 32 --max-query-tokens 16 --output all/records
records_of_workers: data.write_records --labels log/labels --logs split --workers 2 --documents-per-query 4 \
    --output log/records
train: launch.train tiny_cpu --records all/records --output all/run --training.steps 9 {_CADENCE}
train_hashed: launch.train tiny_hashed --records all/records --output hashed/run --training.steps 9 {_CADENCE}
train_on_two_devices: launch.train tiny_hashed --records all/records --output mesh/run {_FEW} --mesh.fsdp 2 \
    --mesh.documents ring --loss.implementation streaming
train_qwen: launch.train tiny_cpu --records all/records --output qwen/run {_FEW} --encoder.family qwen3 \
    --encoder.key-value-heads 2 --encoder.pooling last --loss.name rince
train_with_options: launch.train tiny_cpu --records all/records --output options/run {_FEW} \
    --encoder.no-shared-towers --encoder.dropout 0.1 --optimizer.ema-decay 0.9 --training.micro-batches 2 \
    --loss.implementation streaming --loss.matryoshka-dims 32 --loss.ignore-margin 0.1 --loss.log-q-correction \
    --loss.log-q-buckets 1024
train_discriminator: launch.train_discriminator --logs split --output theta --layers 1 --width 64 --heads 4 \
    --feed-forward-width 128 --dropout 0 --vocabulary-size 2000 --max-tokens 48 --pairs-per-batch 64 \
    --learning-rate 2e-3 --steps 120 --log-every-steps 20 --checkpoint-every-steps 60
mine_by_theta: data.mine --logs split --discriminator theta --alpha 0.3 --output theta_labels
embed: launch.embed --run all/run --texts split --tower document --output all/vectors
embed_queries: launch.embed --run all/run --texts all/labels --tower query --output all/queries
embed_int8: launch.embed --run options/run --texts split --tower document --dtype int8 --dim 32 --output options/vectors
mine_negatives: launch.mine_negatives --labels all/labels --query-embeddings all/queries \
    --document-embeddings all/vectors --level 1 --relative-margin .05 --logs split --output mined
evaluate: launch.evaluate --run all/run --logs split --document-embeddings all/vectors --output all/evaluation
evaluate_int8: launch.evaluate --run options/run --logs split --document-embeddings options/vectors --name options \
    --output options/evaluation
export: launch.export --run all/run --output all/exported
export_two_towers: launch.export --run options/run --output options/exported
search: launch.search --run all/run --logs split --document-embeddings all/vectors "touchpad pointer"
status: launch.status all/run
label_report: data.report --labels all/labels --logs split --output gains.html
report: launch.report all/labels all/run all/evaluation options/run options/evaluation --output report.html
convert: data.convert --source mapping --input raw --output converted
synthesize: data.synthesize --logs split --output written --base-url ENDPOINT --model none --max-queries 20 \
    --concurrency 1
mine_written: data.mine --logs split --knowledge-documents written --output written_labels
pipeline: launch.pipeline tiny_cpu --logs logs --from 2024-03-06 --arms cross_perspective --output work {_FEW}
""" + "\n".join(
    f"inspect_{name.replace('/', '_')}: data.inspect WORK/{name}" for name in (*_INSPECTED, "theta", "work")
)

# The source for data.convert. Some of its rows break a rule.
RAW = {
    "mapping.toml": """
[documents]
files = "products.jsonl"
columns = { doc_id = "sku", title = ["brand", "name"] }
[searches]
files = "searches.csv"
time_format = "%d/%m/%Y %H:%M:%S"
time_zone = "Asia/Shanghai"
columns = { search_id = "id", user_id = "visitor", query = "typed", time = "at" }
[candidates]
files = "results.csv"
columns = { search_id = "id", doc_id = "sku", stage = "state", watch_seconds = "ms" }
values = { stage = { seen = "shown" } }
""",
    "products.jsonl": '{"sku": "s1", "brand": "Acme", "name": "Tv"}\n{"sku": "s2", "brand": null, "name": "Lamp"}\n',
    "searches.csv": "id,visitor,typed,at\n1,u,tv,31/05/2024 20:00:00\n2,u,lamp,tomorrow\n",
    "results.csv": "id,sku,state,ms\n1,s1,seen,2500\n1,s2,missed,\n2,s1,seen,1\n",
}


def _blank(pattern: str) -> Callable[[bytes], bytes]:
    """Returns a function that blanks the part that a regular expression matches after its group."""
    compiled = re.compile(pattern.encode(), re.DOTALL)
    return lambda content: compiled.sub(lambda found: found[found.lastindex or 0] + b"...", content)


def _without_users(content: bytes) -> bytes:
    """Returns the schema and the sorted rows of a table without its column `user`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(content)).drop_columns("user")
    return "\n".join([str(table.schema), *sorted(map(str, table.to_pylist()))]).encode()


_SPEEDS = _blank(
    r'("(?:(?:examples|tokens)_per_second|model_flops_utilization|(?:checkpoint|compilation)_seconds)": )[^,}\n]+'
)
# The name of a state, and its fingerprint, which is computed from the name.
_STATE = _blank(
    r'("state": (?:\{\s+"fingerprint": )?|"fingerprint": (?="\w{64}",\s+"inputs": \{\},\s+"kind": "mining_state"))'
    r'"\w{32,64}"'
)

# The parts of files that are not compared: the pattern of the path, the function that returns the compared bytes, and
# the reason.
MASKS: tuple[tuple[str, Callable[[bytes], bytes], str], ...] = (
    ("*/metrics.jsonl", _SPEEDS, "speeds"),
    (
        "*/goodput.jsonl",
        _blank(r'("(?:\w*seconds\w*|goodput)": )[^,}\n]+|("(?:time|devices|commit)": )(?:"[^"]*"|null)'),
        "seconds, shares of seconds, and when, where and from which commit a run started",
    ),
    ("outcomes/inspect_*.json", _SPEEDS, "speeds"),
    ("outcomes/train*.json", _SPEEDS, "the seconds that checkpoints blocked a run"),
    ("work/steps.json", _SPEEDS, "the seconds that checkpoints blocked a run"),
    (
        "outcomes/status.json",
        _blank(r'("(?:examples_per_second|goodput|input_wait|\w+_seconds_\w+)": )[^,}]+'),
        "speeds and shares of seconds",
    ),
    ("state/days/*.parquet", _without_users, "users are hashes with a random key"),
    ("state/manifest.json", _STATE, "a state of mining by days has a random name and a fingerprint of the name"),
    ("days/labels/manifest.json", _STATE, "the random name of the state"),
    ("outcomes/mine_day_*.json", _STATE, "the random name of the state"),
    (
        "*report.html",
        _blank(r"(<td>\d+ of \d+</td><td>[^<]*</td>)(?:<td>[^<]*</td>){2}"),
        "the speed and goodput of a run",
    ),
    ("*report.html", _blank(r'(<dl class="facts">).*?</dl>'), "the date, the cost and the commit of the runs"),
    (
        "work/steps.json",
        _blank(r'(\n  "report": \{.*?"output": )"\w{64}"|("seconds": )[\d.]+'),
        "the fingerprint of report.html, and seconds",
    ),
)
LEFT_OUT = {
    "messages/*": "standard error contains times",
    "*/compilation_cache/*": "machine code, with names that depend on the work directory",
    "*/tensorboard/*": "the numbers of metrics.jsonl again, with the time of each write",
    "work/__pycache__/*": "the compiled configuration of the pipeline, with the time of its source",
    "state/key": "a random key",
}


def record(work: Path) -> dict[str, Any]:
    """Runs all programs in an empty directory, and returns the digest of each artefact."""
    (work := work.resolve()).mkdir(parents=True, exist_ok=True)
    if any(work.iterdir()):
        raise SystemExit(f"{work} is not empty; choose another directory")
    for name, text in RAW.items():
        _write(work / "raw" / name, text.encode())
    start = time.monotonic()
    with _endpoint() as url:
        for line in ROAD.strip().splitlines():
            name, command = line.split(": ", 1)
            _call(
                work, name, [word.replace("ENDPOINT", url).replace("WORK", str(work)) for word in shlex.split(command)]
            )
            print(f"{time.monotonic() - start:.0f} s: {name} done", file=sys.stderr, flush=True)
    recorded = {"about": _about(), "seconds": round(time.monotonic() - start, 1)}
    return {**recorded, "artefacts": dict(sorted(digests(work)))}


def _call(work: Path, name: str, command: list[str]) -> None:
    """Runs one program of this checkout, and writes its outcome line with relative paths to outcomes/NAME.json."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_", "PYTHON"))}
    environment |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    if "--mesh.fsdp" in command:
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    done = subprocess.run([sys.executable, "-m", *command], cwd=work, env=environment, capture_output=True)
    _write(work / "messages" / f"{name}.txt", done.stderr)
    if done.returncode or not done.stdout:
        raise SystemExit(f"{shlex.join(command)}: exit status {done.returncode}\n{done.stderr.decode()[-3000:]}")
    _write(work / "outcomes" / f"{name}.json", done.stdout.splitlines()[-1].replace(f"{work}/".encode(), b""))


class _Writer(BaseHTTPRequestHandler):
    """A server that answers instead of a language model. Its answer depends only on the query."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        query = re.findall(r"^Search query: (.*)$", body["messages"][-1]["content"], re.MULTILINE)[-1]
        document = {"title": f"All about {query}", "text": f"A long look at {query}, with prices.", "cover_text": ""}
        document |= {"keywords": [query, "guide"], "related_queries": [f"cheap {query}"]}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        message = {"role": "assistant", "content": json.dumps(document)}
        answer = {"id": "0", "object": "chat.completion", "created": 0, "model": "none", "usage": usage}
        answer |= {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def _endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Writer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def digests(work: Path) -> Iterator[tuple[str, str]]:
    """Yields name and SHA-256 of each artefact: a file is named by its path, an array of a checkpoint by its path."""
    for file in sorted(path for path in work.rglob("*") if path.is_file()):
        name = file.relative_to(work).as_posix()
        in_checkpoint = re.search(r"/checkpoints/\d+/(.*)", name)
        if in_checkpoint and in_checkpoint[1].endswith("/_METADATA"):
            yield from _array_digests(file.parent.resolve(), name.removesuffix("/_METADATA"))
        elif in_checkpoint and in_checkpoint[1] != "progress/metadata":
            continue  # Orbax stores the arrays in files with random names and times.
        elif not any(fnmatch.fnmatch(name, pattern) for pattern in LEFT_OUT):
            yield name, hashlib.sha256(masked(name, file.read_bytes())).hexdigest()


def masked(name: str, content: bytes) -> bytes:
    """Returns the part of a file that is compared."""
    for pattern, mask, _ in MASKS:
        if fnmatch.fnmatch(name, pattern):
            content = mask(content)
    return content


def _array_digests(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
        tree = handler.metadata(folder).tree
        to_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        arrays = handler.restore(folder, args=ocp.args.PyTreeRestore(restore_args=to_host))
    for path, leaf in jax.tree_util.tree_flatten_with_path(arrays)[0]:
        array = np.asarray(leaf)
        content = f"{array.dtype} {array.shape}\n".encode() + array.tobytes()
        yield name + jax.tree_util.keystr(path), hashlib.sha256(content).hexdigest()


def _about() -> dict[str, Any]:
    """Returns the facts about this machine and its packages that the bytes also depend on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    versions = {name: importlib.metadata.version(name) for name in ("jaxlib", "numpy", "pyarrow", "duckdb")}
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return {"same_results.py": own, "processor": cpu and cpu[1], "cores": len(os.sched_getaffinity(0)), **versions}


def compare(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Returns a line for each artefact that differs, is missing or is new; no line if all are equal."""
    differing = [f"differs: {name}" for name in before if name in after and before[name] != after[name]]
    missing = [f"missing: {name}" for name in before if name not in after]
    return [*differing, *missing, *(f"new: {name}" for name in after if name not in before)]


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run the programs and record the digests of their outputs")
    recording.add_argument("output", type=Path)
    recording.add_argument("--work", type=Path, help="the directory to keep the files in; by default they are removed")
    comparing = commands.add_parser(
        "compare", help="compare two recordings; the exit status is 0 if they are equal, else 1"
    )
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "record":
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            recorded = record(options.work or Path(temporary))
        options.output.write_text(json.dumps(recorded, indent=1) + "\n")
        print(f"{len(recorded['artefacts'])} artefacts in {recorded['seconds']} s")
        return 0
    before, after = (json.loads(file.read_text()) for file in (options.before, options.after))
    for name, value in before["about"].items():
        if value != after["about"].get(name):
            print(f"the recordings differ in {name}: {value} and {after['about'].get(name)}")
    lines = compare(before["artefacts"], after["artefacts"])
    equal = len(before["artefacts"].items() & after["artefacts"].items())
    print("\n".join([*lines, f"{equal} artefacts are equal, {len(lines)} are not"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
