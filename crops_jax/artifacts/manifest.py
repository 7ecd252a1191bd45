"""The file manifest.json of each directory that a program writes, and its fingerprints.

A manifest names the program, the arguments and the version that made a directory. It also holds the manifests of the
inputs, so that a chain of programs can be traced back from its last output. It holds neither times nor the path of the
output, so that equal inputs lead to equal bytes.
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
from crops_jax.storage.names import shown

MANIFEST = "manifest.json"
_FIELDS = {"program": str, "kind": str, "version": str, "fingerprint": str, "inputs": dict, "arguments": dict}
_REMEDY = "write the directory again"
# Arguments that do not change the content of the output.
_OUTPUT_ARGUMENTS = {"output", "overwrite"}


def fingerprint(path: Path | str) -> str:
    """Returns the SHA-256 of the content of a directory or file as hexadecimal digits.

    For a directory with a manifest, it returns the fingerprint that the manifest records. All files of any other
    directory are read. Raises InputError when the path does not exist.
    """
    path = Path(path)
    if path.is_dir() and (path / MANIFEST).exists():
        return read_manifest(path)["fingerprint"]
    if not path.exists():
        raise InputError(f"{path}: no such file or directory; check the path")
    return content_fingerprint(path)


def read_manifest(path: Path | str) -> dict[str, Any]:
    """Returns the manifest of a directory. Raises InputError when it is missing or cannot be read."""
    file = Path(path) / MANIFEST
    if not Path(path).is_dir():
        raise InputError(f"{path}: no such directory; check the path")
    if not file.exists():
        raise InputError(f"{path}: no {MANIFEST} in it, so no program of crops_jax wrote it; check the path")
    manifest = read_object(file, remedy=_REMEDY)
    _check_manifest(file, manifest, "manifest")
    return manifest


def _check_manifest(file: Path, manifest: dict[str, Any], name: str) -> None:
    """Raises InputError when a required field of a manifest or of its inputs is missing or has another type."""
    for field, kind in _FIELDS.items():
        typed(file, f"{name}.{field}", manifest.get(field), kind, remedy=_REMEDY)
    for source, described in manifest["inputs"].items():
        field_path = f"{name}.inputs.{source}"
        typed(file, field_path, described, dict, remedy=_REMEDY)
        typed(file, f"{field_path}.fingerprint", described.get("fingerprint"), str, remedy=_REMEDY)
        if "manifest" in described:
            typed(file, f"{field_path}.manifest", described["manifest"], dict, remedy=_REMEDY)
            _check_manifest(file, described["manifest"], f"{field_path}.manifest")


def describe_input(path: Path | str) -> dict[str, Any]:
    """Returns the entry of one input in a manifest: its fingerprint and, if it has one, its own manifest."""
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
      program: the name of the program, such as "data.mine".
      kind: the kind of the directory: logs, labels, records, run, embeddings, evaluation, encoder, work or comparison.
      arguments: a dataclass or mapping. The manifest leaves out --output and --overwrite.
      inputs: the paths of the inputs by name of the argument; None for an argument without a value.
      content: the fingerprint of the content. None, for directories that a program works in: the fingerprint is then
        that of program, arguments and inputs.
      extra: further fields, such as those that must be equal in later steps.
    """
    values = arguments if isinstance(arguments, Mapping) else dataclasses.asdict(arguments)
    kept = {
        name: _plain(value) for name, value in values.items() if name not in _OUTPUT_ARGUMENTS and name not in inputs
    }
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
    """Writes manifest.json into a directory."""
    write_text(Path(directory) / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def content_fingerprint(path: Path) -> str:
    """Returns the SHA-256 of the names and bytes of all files except manifests. It ignores recorded fingerprints."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p.name != MANIFEST)
    total = hashlib.sha256()
    for file in files:
        with open(file, "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        name = file.name if file == path else file.relative_to(path).as_posix()
        total.update(f"{digest}  {name}\n".encode())
    return total.hexdigest()


def _plain(value: Any) -> Any:
    """Returns a value in the types that JSON has. Paths are those that the user gave."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
