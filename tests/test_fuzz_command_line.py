"""The generated cases are as many as they should be, and some dozens of them go through the real command line."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fuzzing
from tests.data.inspection import test_fuzz_inspect
from tests.data.sources import test_fuzz_sources
from tests.data.tables import test_fuzz_tables

_LEAST = 10_000
_LINES = 36


def test_there_are_ten_thousand_cases():
    # fuzzing.run asserts that each of these numbers was run.
    assert sum(many for _, many in fuzzing.SIZES.values()) >= _LEAST


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=fuzzing.ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
    )


def _bad_tables(generator: random.Random, folder: Path) -> list[str]:
    tables = test_fuzz_tables.random_tables(generator)
    test_fuzz_tables._write(generator, folder / "logs", tables)
    file = generator.choice(sorted((folder / "logs").rglob("*.parquet")))
    if generator.random() < 0.5:
        file.write_bytes(fuzzing.mutated_bytes(generator, file.read_bytes()))
    how = generator.choice(["fail", "quarantine"])
    program = generator.choice(["data.mine", "data.hold_out"])
    rest = ["--from", "2024-01-01"] if program == "data.hold_out" else []
    return [program, "--logs", str(folder / "logs"), "--output", str(folder / "out"), "--on-bad-rows", how, *rest]


def _bad_directory(generator: random.Random, folder: Path) -> list[str]:
    kind = generator.choice(["labels", "records", "embeddings", "logs"])
    files = test_fuzz_inspect._files(kind)
    test_fuzz_inspect._write(folder / kind, files)
    name = generator.choice(sorted(files))
    (folder / kind / name).write_bytes(fuzzing.mutated_bytes(generator, files[name]))
    return ["data.inspect", str(folder / kind)]


def _bad_source(generator: random.Random, folder: Path) -> list[str]:
    mapping = test_fuzz_sources._toml(fuzzing.mutated_json(generator, test_fuzz_sources._MAPPING))
    products = fuzzing.mutated_bytes(generator, test_fuzz_sources._jsonl(test_fuzz_sources._PRODUCTS))
    grades = test_fuzz_sources._csv(test_fuzz_sources._GRADES)
    test_fuzz_sources._write(folder, mapping.encode(errors="surrogatepass"), products, grades)
    return ["data.convert", "--source", "mapping", "--input", str(folder / "raw"), "--output", str(folder / "logs")]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(_LINES))
def test_bad_input_ends_in_status_2_or_an_outcome(number, tmp_path):
    generator = random.Random(f"command line {number}")
    command = (_bad_tables, _bad_directory, _bad_source)[number % 3](generator, tmp_path)
    done = _run(tmp_path, *command)
    assert "Traceback" not in done.stderr
    if done.returncode == 0:
        assert isinstance(json.loads(done.stdout.splitlines()[-1]), dict)
    else:
        assert done.returncode == 2, done.stderr
        # A message can have several lines, one for each problem of the input.
        assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 1, done.stderr
        assert done.stdout == ""
        assert not [
            left.name for left in tmp_path.iterdir() if left.name.startswith((".out", ".logs", "crops_jax-duckdb"))
        ]
