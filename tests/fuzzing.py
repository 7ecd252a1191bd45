"""Generated bad input: seeded, counted, and with one of three endings.

A case is a function of a generator and an empty folder. It makes its input, gives it to the code under test and says
how that ended: REFUSED (InputError, status 2), or ACCEPTED, in which case it has compared what came out with an oracle
of its own. Whatever else happens (another exception, a crash of native code, a hang) fails the test with the number of
the case, and `replay` runs that one alone.

    python -c "from tests import fuzzing; from tests.data.tables.test_fuzz_tables import case; fuzzing.replay(case, 17)"
"""

import faulthandler
import importlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crops_jax.errors import InputError
from tests.paths import ROOT

REFUSED, ACCEPTED = "refused", "accepted"
_HANG_SECONDS = 300

SIZES = {
    "tests.data.tables.test_fuzz_tables.values_case": (6, 300),
    "tests.data.tables.test_fuzz_tables.bytes_case": (10, 600),
    "tests.crops_jax.records.test_fuzz_records.shards_case": (30, 2500),
    "tests.crops_jax.records.test_fuzz_records.frames_case": (30, 2000),
    "tests.crops_jax.records.test_fuzz_records.description_case": (30, 1000),
    "tests.crops_jax.test_fuzz_folders.manifest_case": (30, 1000),
    "tests.crops_jax.test_fuzz_folders.embeddings_case": (20, 700),
    "tests.crops_jax.test_fuzz_folders.tokenizer_case": (10, 300),
    "tests.crops_jax.test_fuzz_folders.model_folder_case": (20, 500),
    "tests.crops_jax.test_fuzz_folders.safetensors_case": (20, 500),
    "tests.crops_jax.test_fuzz_folders.discriminator_case": (20, 500),
    "tests.crops_jax.program.test_fuzz_program.config_case": (20, 500),
    "tests.crops_jax.program.test_fuzz_program.overrides_case": (4, 200),
    "tests.data.test_fuzz_arguments.arguments_case": (6, 400),
    "tests.data.labels.test_fuzz_labels.labels_case": (10, 500),
    "tests.data.sources.test_fuzz_sources.mapping_case": (10, 400),
    "tests.data.sources.test_fuzz_sources.lines_case": (6, 300),
    "tests.data.language_model.test_fuzz_answers.answer_case": (50, 1500),
    "tests.data.language_model.test_fuzz_answers.cache_case": (30, 600),
    "tests.data.inspection.test_fuzz_inspect.directory_case": (10, 300),
}
"""Of every case: how many are run by make test, and how many by make test-slow. Together at least 10,000."""

Case = Callable[[random.Random, Path], str]


def sizes(case: Case) -> pytest.MarkDecorator:
    """Runs a test with few cases, and as a slow one with all of them."""
    few, many = SIZES[_name(case)]
    return pytest.mark.parametrize("number", [few, pytest.param(many, marks=pytest.mark.slow)])


def run(case: Case, number: int, folder: Path, **least: float) -> None:
    """Runs cases 0 to number - 1. More than these shares of them have to end so: refused=1 / 10, accepted=1 / 10."""
    endings = _endings(case, number, folder)
    for ending, share in least.items():
        assert endings[ending] / number > share, f"{_name(case)}: {dict(endings)} of {number} cases"


def replay(case: Case, number: int) -> str:
    """Runs one case alone, in a folder that is left in place for a look; prints where that is and how it ended."""
    folder = Path(tempfile.mkdtemp(prefix="fuzzing-"))
    print(folder, file=sys.stderr)
    ending = _one(case, number, folder, keep=True)
    print(ending, file=sys.stderr)
    return ending


def mutated_bytes(generator: random.Random, content: bytes) -> bytes:
    """Bytes with some of them flipped, cut off, taken out, repeated, zeroed or put in."""
    changed = bytearray(content)
    for _ in range(generator.choice([1, 1, 1, 2, 4, 30])):
        place, length = generator.randrange(len(changed) + 1), generator.choice([1, 1, 4, 8, 64])
        match generator.randrange(7):
            case 0 | 1 if place < len(changed):
                changed[place] ^= 1 << generator.randrange(8)
            case 2 if place < len(changed):
                changed[place] = generator.randrange(256)
            case 3:
                del changed[place : place + length]
            case 4:
                changed[place : place + length] = bytes(len(changed[place : place + length]))
            case 5:
                changed[place:place] = generator.randbytes(length)
            case 6 if generator.random() < 0.3:
                del changed[place:]
    return bytes(changed)


_ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**40, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", " ", "\0", "a", "0", "-1", "1e9", "nan", "../..", "/", "é" * 300, "\ud800", [], [None], [[]], [1, 2], {},
    {"": 0}, {"a": {"b": []}},
]  # fmt: skip


def mutated_json(generator: random.Random, value: Any) -> Any:
    """A copy of a JSON value of which some part is replaced by an odd value, removed, renamed or moved."""
    if isinstance(value, dict) and value and generator.random() < 0.95:
        key = generator.choice(sorted(value))
        changed = dict(value)
        match generator.randrange(6):
            case 0:
                del changed[key]
            case 1:
                changed[generator.choice(["", "x", key.upper(), key + " "])] = changed.pop(key)
            case 2:
                changed[key] = changed[generator.choice(sorted(value))]
            case _:
                changed[key] = mutated_json(generator, value[key])
        return changed
    if isinstance(value, list) and value and generator.random() < 0.85:
        place = generator.randrange(len(value))
        changed = list(value)
        match generator.randrange(5):
            case 0:
                del changed[place]
            case 1:
                changed.append(value[place])
            case _:
                changed[place] = mutated_json(generator, value[place])
        return changed
    return generator.choice(_ODD)


def mutated_json_text(generator: random.Random, content: Any) -> bytes:
    """JSON with a part that is odd, or text that is nearly JSON."""
    match generator.randrange(8):
        case 0:
            return mutated_bytes(generator, json.dumps(content).encode())
        case 1:
            return generator.choice([b"", b"null", b"[]", b"{}", b'"a"', b"\xff\xfe", b"[" * 100_000, b"1" * 5000])
        case _:
            for _ in range(generator.choice([1, 1, 2, 5])):
                content = mutated_json(generator, content)
            return json.dumps(content).encode()


def _endings(case: Case, number: int, folder: Path) -> Counter[str]:
    """How many of the cases 0 to number - 1 ended in which way.

    All of them run in one process of their own, so that one that crashes or hangs in native code is seen and named.
    """
    if number < SIZES[_name(case)][1]:
        return Counter(_one(case, one, folder / str(one)) for one in range(number))
    command = [sys.executable, "-m", "tests.fuzzing", case.__module__, case.__name__, str(number), str(folder)]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    lines = child.stdout.splitlines()
    last = f"{_name(case)}: case {len(lines) - 1} ended the process with status {child.returncode}"
    assert child.returncode == 0, f"{last}\n{child.stderr[-6000:]}"
    endings = Counter(line.split()[1] for line in lines)
    assert endings.total() == number
    return endings


def _one(case: Case, number: int, folder: Path, *, keep: bool = False) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return case(random.Random(f"{_seed_name(case)} {number}"), folder)
    except InputError as error:
        if not str(error):
            raise AssertionError("an InputError that says nothing") from error
        return REFUSED
    except BaseException as error:
        error.add_note(f"case {number} of {_name(case)}")
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _name(case: Case) -> str:
    return f"{case.__module__}.{case.__name__}"


def _seed_name(case: Case) -> str:
    """The name without the folders of its package, so that a file may move and keep its cases."""
    tests, *package, file = case.__module__.split(".")
    return ".".join([tests, *package[:1], file, case.__name__])


def _main(module: str, name: str, number: str, folder: str) -> None:
    case = getattr(importlib.import_module(module), name)
    # What native code and libraries print goes to standard error; standard output is for the endings alone.
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for one in range(int(number)):
        faulthandler.dump_traceback_later(_HANG_SECONDS, exit=True)
        print(one, end=" ", file=told, flush=True)
        print(_one(case, one, Path(folder) / str(one)), file=told, flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
