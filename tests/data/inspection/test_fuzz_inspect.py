"""data.inspect on damaged directories of every kind: refused by file, or described as what they were written as."""

import functools
import json
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from data.inspect import describe
from tests import fuzzing
from tests.data import test_inspect
from tests.fuzzing import ACCEPTED

_MAKERS = {
    "logs": test_inspect.make_logs,
    "labels": test_inspect.make_labels,
    "records": test_inspect.make_records,
    "embeddings": test_inspect.make_embeddings,
    "evaluation": test_inspect.make_evaluation,
    "work": test_inspect.make_work,
}
# What a person reads off the description to know how much there is.
_AMOUNTS = {"rows", "splits", "records", "levels", "sources", "stages", "grades", "dim", "queries", "documents"}


@functools.cache
def _files(kind: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = _MAKERS[kind](Path(folder) / kind)
        return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@functools.cache
def _described(kind: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / kind
        _write(path, _files(kind))
        return json.dumps(_amounts(describe(path)), sort_keys=True, default=str)


def _write(path: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


def _amounts(content: dict[str, Any]) -> dict[str, Any]:
    """The amounts of a description; those of a work's directories one below the other."""
    found = {name: value for name, value in content.items() if name in _AMOUNTS}
    if "directories" in content:
        found["directories"] = [_amounts(directory) for directory in content["directories"]]
    for split in found.get("splits", {}).values() if isinstance(found.get("splits"), dict) else []:
        if isinstance(split, dict):
            split.pop("samples", None)
    return found


def directory_case(generator: Random, folder: Path) -> str:
    kind = generator.choice(sorted(_MAKERS))
    path = folder / kind
    _write(path, _files(kind))
    for name in generator.sample(sorted(_files(kind)), min(len(_files(kind)), generator.choice([1, 1, 1, 2]))):
        file, content = path / name, _files(kind)[name]
        match generator.randrange(8):
            case 0:
                file.unlink()
            case 1:
                other = generator.choice(sorted(_MAKERS))
                file.write_bytes(_files(other)[generator.choice(sorted(_files(other)))])
            case 2 | 3 | 4 if name.endswith(".json"):
                file.write_bytes(fuzzing.mutated_json_text(generator, json.loads(content)))
            case _:
                file.write_bytes(fuzzing.mutated_bytes(generator, content))
    content = describe(path)
    # A manifest that says another kind is another directory.
    if content["kind"] == kind:
        assert json.dumps(_amounts(content), sort_keys=True, default=str) == _described(kind)
    return ACCEPTED


@fuzzing.sizes(directory_case)
def test_damaged_directories(number, tmp_path):
    fuzzing.run(directory_case, number, tmp_path, refused=1 / 2)
