"""Describes the contents of a directory of this project, after reading all of its files.

The manifest names the kind of the directory. A directory without a manifest is read as log tables of a user.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from crops_jax import artifacts, program
from crops_jax.artifacts.json_fields import read_json, read_object, typed
from crops_jax.errors import InputError
from crops_jax.program.progress import say
from crops_jax.storage import InputPath
from data.inspection import knowledge_documents, tables, training

# The kinds of directories that are written once. Directories that programs work in have another kind of fingerprint.
_WRITTEN_ONCE = {"logs", "labels", "quarantine", "records", "evaluation", "encoder"}
_MAX_LINE_LENGTH = 200


@dataclass(frozen=True, kw_only=True)
class InspectArguments:
    """The arguments of data.inspect."""

    path: Annotated[InputPath, tyro.conf.Positional]
    """The directory to inspect."""


def inspect(arguments: InspectArguments) -> dict[str, Any]:
    """Prints the contents of a directory: counts, histograms and first rows. It reads all files.

    It reads log tables (also without a manifest), labels, records, runs, embeddings, evaluations, exported encoders,
    relevance discriminators (theta), synthesized documents, quarantined rows, the state of mining by days, the work of
    a pipeline and the table of a comparison. If a file is broken, the program names the file and the record and exits
    with status 2.
    """
    content = describe(Path(arguments.path))
    _print(content)
    return content


def describe(path: Path) -> dict[str, Any]:
    """Returns path, kind, program and contents of a directory. Raises InputError if a file is broken."""
    if not path.is_dir():
        raise InputError(f"{path}: {'not a directory' if path.exists() else 'no such directory'}; give a directory")
    if not (path / artifacts.MANIFEST).exists():
        return {"path": str(path), "kind": "logs", "program": None, **_describe_unsigned(path)}
    manifest = artifacts.read_manifest(path)
    kind = manifest["kind"]
    if kind not in _DESCRIBE:
        raise InputError(f"{path / artifacts.MANIFEST}: kind {kind!r} is not one of {', '.join(sorted(_DESCRIBE))}")
    content = {"path": str(path), "kind": kind, "program": manifest["program"], **_DESCRIBE[kind](path)}
    if kind in _WRITTEN_ONCE and artifacts.content_fingerprint(path) != manifest["fingerprint"]:
        raise InputError(
            f"{path}: its files are not those that {artifacts.MANIFEST} was written for, although each can be read; a "
            "file was changed, added or removed later; write the directory again"
        )
    return content


def _describe_unsigned(path: Path) -> dict[str, Any]:
    try:
        return tables.describe_logs(path)
    except InputError as error:
        raise InputError(
            f"{error} (the directory has no {artifacts.MANIFEST}, so it was read as log tables)"
        ) from error


def _describe_work(path: Path) -> dict[str, Any]:
    """Describes the work of a pipeline: the finished steps, and each directory that they wrote."""
    steps = (
        read_json(path / "steps.json", remedy="call launch.pipeline again") if (path / "steps.json").exists() else {}
    )
    return {"steps": list(steps), "directories": [describe(child) for child in _signed_directories(path)]}


def _describe_comparison(path: Path) -> dict[str, Any]:
    """Describes the table of launch.compare: the queries of each finished cell by metric, and what the cells read."""
    remedy = "remove the file, so that launch.compare runs the cell again"
    cells = {}
    for file in sorted((path / "results").glob("*.json")):
        values = read_object(file, remedy=remedy).get("values", {})  # a file of tuned learning rates has none
        typed(file, "values", values, dict, remedy=remedy)
        counts = {name: len(typed(file, f"values.{name}", row, list, remedy=remedy)) for name, row in values.items()}
        cells |= {file.stem: counts} if counts else {}
    return {"cells": cells, "directories": [describe(child) for child in _signed_directories(path)]}


def _signed_directories(path: Path) -> list[Path]:
    """Returns the uppermost directories below `path` that hold a manifest.

    Raises InputError if a directory holds tables and no manifest.
    """
    if unsigned := sorted(path.glob("*.parquet")):
        raise InputError(f"{unsigned[0]}: its directory has no {artifacts.MANIFEST}; write {path} again")
    directories = []
    for child in sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        directories += [child] if (child / artifacts.MANIFEST).exists() else _signed_directories(child)
    return directories


_DESCRIBE: dict[str, Callable[[Path], dict[str, Any]]] = {
    "logs": tables.describe_logs,
    "labels": tables.describe_labels,
    "mining_state": tables.describe_mining_state,
    "quarantine": tables.describe_quarantine,
    "knowledge_documents": knowledge_documents.describe_knowledge_documents,
    "evaluation": tables.describe_evaluation,
    "records": training.describe_records,
    "run": training.describe_run,
    "embeddings": training.describe_embeddings,
    "encoder": training.describe_encoder,
    "discriminator": training.describe_discriminator,
    "work": _describe_work,
    "comparison": _describe_comparison,
}


def _print(content: dict[str, Any], indent: str = "") -> None:
    for name, value in content.items():
        if isinstance(value, dict) and value:
            say(f"{indent}{name}:")
            _print(value, indent + "  ")
        elif isinstance(value, list) and value:
            say(f"{indent}{name}:")
            for item in value:
                say(f"{indent}  - {_line(item)}")
        elif value not in (None, {}, []):
            say(f"{indent}{name}: {_line(value)}")


def _line(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MAX_LINE_LENGTH else f"{text[:_MAX_LINE_LENGTH]}..."


if __name__ == "__main__":
    program.run(
        inspect,
        example="python -m data.inspect labels",
        table=False,
    )
