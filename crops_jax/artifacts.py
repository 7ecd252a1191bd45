"""Directories that programs write: manifest.json, fingerprints, and all-or-nothing output.

A manifest says which program wrote a directory, with which arguments and version, and carries the manifests of what
it read, so that a chain can be traced back from its last link. Times and the place of the output are not in it: the
same inputs give the same bytes.
"""

import contextlib
import ctypes
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crops_jax import __version__
from crops_jax.errors import InputError
from crops_jax.json_fields import read_object, typed

MANIFEST = "manifest.json"
_FIELDS = {"program": str, "kind": str, "version": str, "fingerprint": str, "inputs": dict, "arguments": dict}
_REMEDY = "write the directory again"
# fcntl.h and stdio.h of Linux: paths are relative to the working directory; swap two names.
_HERE, _RENAME_EXCHANGE = -100, 2
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
        raise InputError(f"{path}: no such file or directory")
    return content_fingerprint(path)


def read_manifest(path: Path | str) -> dict[str, Any]:
    """The manifest of a directory of ours. Raises InputError where there is none or it cannot be read."""
    file = Path(path) / MANIFEST
    if not Path(path).is_dir():
        raise InputError(f"{path}: no such directory")
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
    """What a manifest keeps of one input: its fingerprint and, where it has one, its own manifest."""
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


@contextlib.contextmanager
def output_directory(
    path: Path | str,
    *,
    overwrite: bool,
    program: str,
    kind: str,
    arguments: Any,
    inputs: Mapping[str, Path | str | None],
    **extra: Any,
) -> Iterator[Path]:
    """A temporary directory beside `path` that becomes `path`, manifest included, when the block ends well.

    Nothing of it is left when the block fails. Raises InputError when `path` holds something and `overwrite` is not
    set, when it is not ours to overwrite or of another kind, or when it is, or lies in, or holds one of the inputs.
    """
    path = Path(path)
    check_output(path, overwrite=overwrite, inputs=inputs)
    if (path / MANIFEST).exists() and (held := read_manifest(path)["kind"]) != kind:
        # A run or a mining state cost more than a mistyped name should take.
        raise InputError(f"{path} holds {held}, not {kind}, so it is not replaced; choose another output")
    with appears_whole(path, replaces=overwrite) as temporary:
        yield temporary
        manifest = new_manifest(
            program=program,
            kind=kind,
            arguments=arguments,
            inputs=inputs,
            content=content_fingerprint(temporary),
            **extra,
        )
        write_manifest(temporary, manifest)


@contextlib.contextmanager
def appears_whole(path: Path, *, replaces: bool = False) -> Iterator[Path]:
    """A temporary directory beside `path` that becomes `path` when the block ends well.

    Nothing of it is left when the block fails. Raises OSError where `path` holds something by then, which another
    process may have put there, unless `replaces` is set.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent))
    try:
        os.chmod(temporary, 0o755)
        yield temporary
        (_replace if replaces else os.replace)(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_output(
    path: Path | str, *, overwrite: bool | None, inputs: Mapping[str, Path | str | None] | None = None
) -> None:
    """Raises InputError when a program may not write `path`; see `output_directory`.

    Args:
      overwrite: whether files of ours that are there are replaced; None: the program has no --overwrite.
    """
    path = Path(path)
    if os.fsencode(path).decode(errors="replace") != str(path):
        raise InputError(f"--output {str(path)!a} is not UTF-8; choose another output")
    for name, source in (inputs or {}).items():
        if source is None:
            continue
        here, there = path.resolve(), Path(source).resolve()
        # Inside an input, manifest or none, the output would change the fingerprint of what it was made from.
        if here == there or here in there.parents or there in here.parents:
            raise InputError(f"--output {path} and --{name.replace('_', '-')} {source} overlap; choose another output")
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path} is a broken link; remove it or choose another output")
    if path.is_file():
        raise InputError(f"{path} is a file, not a directory; choose another output")
    if path.exists() and any(path.iterdir()):
        if overwrite is None:
            raise InputError(f"{path} holds other files and no manifest.json; choose another output")
        if not overwrite:
            raise InputError(f"{path} exists; add --overwrite to replace it, or choose another output")
        if not (path / MANIFEST).exists():
            raise InputError(
                f"{path} holds files that no program of crops_jax wrote, so it is not replaced; choose another output"
            )


def write_text(path: Path | str, text: str) -> None:
    """Writes a file under a temporary name and renames it, so that readers see the old or the new one, never half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _replace(temporary: Path, path: Path) -> None:
    """Puts `temporary` in the place of `path`, in one step where the system can: a kill leaves the old or the new."""
    if not path.exists():
        os.replace(temporary, path)
    elif path.is_symlink() or not _exchange(temporary, path):
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=".old", dir=path.parent))
        os.replace(path, old / path.name)
        os.replace(temporary, path)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps the names of two directories; False, with nothing changed, where only Linux's renameat2 could."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    return renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) == 0


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
