"""The file manifest.json of each directory that a program writes, and the fingerprints in it.

A manifest says which program wrote a directory, with which arguments and version, and carries the manifests of what
it read, so that a chain can be traced back from its last link. Times and the place of the output are not in it: the
same inputs give the same bytes.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crops_jax import __version__
from crops_jax.artifacts.atomic import write_text
from crops_jax.artifacts.json_fields import read_object, typed
from crops_jax.errors import InputError

MANIFEST = "manifest.json"
_FIELDS = {"program": str, "kind": str, "version": str, "fingerprint": str, "inputs": dict, "arguments": dict}
_REMEDY = "write the directory again"
# Arguments that say where to write, or how loudly, and not what.
_PLACES = {"output", "overwrite"}


def fingerprint(path: Path | str) -> str:
    """SHA-256 of what a directory or file holds, as hexadecimal digits.

    A directory with a manifest answers with the fingerprint recorded there; any other one is read in whole.
    """
    path = Path(path)
    if path.is_dir() and (path / MANIFEST).exists():
        return read_manifest(path)["fingerprint"]
    if not path.exists():
        raise InputError(f"{path}: no such file or directory; check the path")
    return content_fingerprint(path)


def read_manifest(path: Path | str) -> dict[str, Any]:
    """The manifest of a directory of ours. Raises InputError where there is none or it cannot be read."""
    file = Path(path) / MANIFEST
    if not Path(path).is_dir():
        raise InputError(f"{path}: no such directory; check the path")
    if not file.exists():
        raise InputError(f"{path}: no {MANIFEST} in it, so no program of crops_jax wrote it; check the path")
    manifest = read_object(file, remedy=_REMEDY)
    _check_manifest(file, manifest, "manifest")
    return manifest


def _check_manifest(file: Path, manifest: dict[str, Any], name: str) -> None:
    """Raises InputError where a field that every manifest has is missing or of another type, however far back."""
    for field, kind in _FIELDS.items():
        typed(file, f"{name}.{field}", manifest.get(field), kind, remedy=_REMEDY)
    for source, described in manifest["inputs"].items():
        place = f"{name}.inputs.{source}"
        typed(file, place, described, dict, remedy=_REMEDY)
        typed(file, f"{place}.fingerprint", described.get("fingerprint"), str, remedy=_REMEDY)
        if "manifest" in described:
            typed(file, f"{place}.manifest", described["manifest"], dict, remedy=_REMEDY)
            _check_manifest(file, described["manifest"], f"{place}.manifest")


def describe_input(path: Path | str) -> dict[str, Any]:
    """Returns what a manifest keeps of one input: its fingerprint and, if it has one, its own manifest."""
    path = Path(path)
    described: dict[str, Any] = {"fingerprint": fingerprint(path)}
    if path.is_dir() and (path / MANIFEST).exists():
        described["manifest"] = read_manifest(path)
    return described


def new_manifest(
    *,
    program: str,
    kind: str,
    arguments: Any,
    inputs: Mapping[str, Path | str | None],
    content: str | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Builds a manifest.

    Args:
      program: such as "data.mine".
      kind: what the directory is: logs, labels, records, run, embeddings, evaluation, encoder, work.
      arguments: a dataclass or mapping; the place of the output is left out.
      inputs: paths of what was read, by name of the argument; None where it was not given.
      content: the fingerprint of the content. None, for directories that programs work in place in: the fingerprint
        is then that of program, arguments and inputs.
      extra: further fields, such as what later steps must agree on.
    """
    given = arguments if isinstance(arguments, Mapping) else dataclasses.asdict(arguments)
    kept = {name: _plain(value) for name, value in given.items() if name not in _PLACES and name not in inputs}
    described = {name: describe_input(path) for name, path in inputs.items() if path is not None}
    manifest = {
        "program": program,
        "kind": kind,
        "version": __version__,
        "arguments": kept,
        "inputs": described,
        **extra,
    }
    if content is None:
        identity = {**manifest, "inputs": {name: value["fingerprint"] for name, value in described.items()}}
        content = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return {**manifest, "fingerprint": content}


def write_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    write_text(Path(directory) / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def content_fingerprint(path: Path) -> str:
    """SHA-256 of the names and bytes of all files, manifests aside, whatever a manifest says of them."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p.name != MANIFEST)
    total = hashlib.sha256()
    for file in files:
        with open(file, "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        name = file.name if file == path else file.relative_to(path).as_posix()
        total.update(f"{digest}  {name}\n".encode())
    return total.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
