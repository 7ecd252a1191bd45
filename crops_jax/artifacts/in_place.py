"""Directories that a program works in. Later calls of the same command continue the work; other commands are refused.

The manifest is written first. It names what the work is made from: program, version, arguments and inputs.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from crops_jax.artifacts.atomic import appears_whole
from crops_jax.artifacts.manifest import MANIFEST, read_manifest, write_manifest
from crops_jax.artifacts.output import check_kind, check_output
from crops_jax.errors import InputError

Manifest = Mapping[str, Any]
# Fields of every manifest that `difference` compares separately, or that would not help the reader of a message.
_COMMON_FIELDS = {"program", "kind", "version", "arguments", "inputs", "fingerprint", "identity"}
_MAX_DIFFERENCES = 5
_MAX_VALUE_LENGTH = 80


def claim(
    directory: Path,
    manifest: Manifest,
    *,
    overwrite: bool | None,
    inputs: Mapping[str, Path | str | None],
    remedy: str,
    fill: Callable[[Path], None] | None = None,
) -> bool:
    """Begins the work in a directory (True), or continues that of an earlier call with the same manifest (False).

    Args:
      directory: the directory that the program works in.
      manifest: the manifest of the present call.
      overwrite: whether a directory that a program of crops_jax wrote is replaced, whatever it was made from; None: the
        program has no --overwrite.
      inputs: the paths that the directory must not overlap, by name of the argument.
      remedy: the end of the message about a directory that was made from other things: what the user can do.
      fill: see `begin`.

    Raises InputError when the directory was made from other things, which the message names, or cannot be written.
    """
    if (directory / MANIFEST).is_file() and not overwrite:
        check_kind(directory, manifest["kind"])
        check_same(directory, manifest, remedy=remedy)
        return False
    begin(directory, manifest, overwrite=overwrite, inputs=inputs, fill=fill)
    return True


def begin(
    directory: Path,
    manifest: Manifest,
    *,
    overwrite: bool | None,
    inputs: Mapping[str, Path | str | None],
    fill: Callable[[Path], None] | None = None,
) -> None:
    """Makes a directory with its manifest, and removes the files that `overwrite` permits to replace.

    Args:
      directory, overwrite, inputs: the arguments of `crops_jax.artifacts.check_output`.
      manifest: the manifest of the directory.
      fill: a function that writes the other files of the new directory into its argument. They appear together with
        the manifest or not at all.

    Raises InputError as `crops_jax.artifacts.check_output`, or when the directory holds work of another kind.
    """
    check_output(directory, overwrite=overwrite, inputs=inputs)
    check_kind(directory, manifest["kind"])
    if fill is not None:
        with appears_whole(directory, replaces=bool(overwrite)) as temporary:
            fill(temporary)
            write_manifest(temporary, manifest)
        return
    if directory.exists():
        _clear(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_manifest(directory, manifest)


def remove(directory: Path) -> None:
    """Removes a directory of ours. Behind a link, only what is in it is removed, and the link stays."""
    _clear(directory)
    if not directory.is_symlink():
        directory.rmdir()


def _clear(directory: Path) -> None:
    """Removes what is in a directory, its manifest last: what a kill leaves of it is still known to be ours."""
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name == MANIFEST):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def check_same(directory: Path, manifest: Manifest, *, remedy: str, flags: Mapping[str, str] | None = None) -> None:
    """Raises InputError, which names the differences, when a directory was made from other things than a manifest.

    Args:
      directory: a directory with a manifest.
      manifest: the manifest of the present call.
      remedy: the end of the message: what the user can do.
      flags: see `difference`.
    """
    stored = read_manifest(directory)
    if not is_same(stored, manifest):
        raise InputError(
            f"{directory} was made from other things ({difference(stored, manifest, flags=flags)}); {remedy}"
        )


def check_written_by(directory: Path, *, program: str, kind: str, noun: str) -> None:
    """Raises InputError when a directory with a manifest has another program or another kind.

    Args:
      directory: a directory with a manifest.
      program: the program that must have written it.
      kind: the kind that it must have.
      noun: the words for a directory of this program in the message, such as "a run".
    """
    stored = read_manifest(directory)
    if (stored["program"], stored["kind"]) != (program, kind):
        raise InputError(
            f"{directory} was written by {stored['program']} and is not {noun} of {program}; choose another --output"
        )


def is_same(kept: Manifest, wanted: Manifest) -> bool:
    """Returns whether two manifests have the same program, arguments and inputs.

    Their fingerprints decide. A directory whose fingerprint becomes that of its content when the work is done keeps
    the first fingerprint in the field identity, which then decides.
    """
    return kept.get("identity", kept["fingerprint"]) == wanted.get("identity", wanted["fingerprint"])


def difference(kept: Manifest, wanted: Manifest, *, flags: Mapping[str, str] | None = None) -> str:
    """Returns the differences of two manifests as text for the brackets of a message.

    When the program or the kind differs, only that is named. Otherwise the text names at most five differences: first
    fields of the manifests, then arguments, then inputs. An argument is named by its flag, or by its path inside a
    configuration.

    Args:
      kept: the manifest of the existing directory.
      wanted: the manifest of the present call. Of the fields that not every manifest has, only its own are compared.
      flags: the flags whose names differ from those of their fields, such as {"from_time": "--from"}.
    """
    for name in ("program", "kind"):
        if kept[name] != wanted[name]:
            return f"{name} {kept[name]}, now {wanted[name]}"
    differences = list(_differences(kept, wanted, flags or {}))
    more = len(differences) - _MAX_DIFFERENCES
    named = "; ".join(differences[:_MAX_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
    return named or "its manifest differs"


def _differences(kept: Manifest, wanted: Manifest, flags: Mapping[str, str]) -> Iterator[str]:
    """Yields each difference of two manifests of the same program and kind as text."""
    fields = ["version", *(name for name in wanted if name not in _COMMON_FIELDS)]
    for name, old, new in _changed(*({name: manifest.get(name) for name in fields} for manifest in (kept, wanted))):
        yield _change_text(name, old, new)
    for name, old, new in _changed(kept["arguments"], wanted["arguments"]):
        yield _change_text(flags.get(name) or (name if "." in name else _flag(name)), old, new)
    prints = ({name: entry["fingerprint"] for name, entry in manifest["inputs"].items()} for manifest in (kept, wanted))
    for name, _, _ in _changed(*prints):
        yield f"{_flag(name)} has changed"


def _changed(kept: Manifest, wanted: Manifest) -> Iterator[tuple[str, Any, Any]]:
    """Yields name, old and new value of each field that differs.

    The name of a nested field is its path. A missing value is None.
    """
    old, new = dict(_flat(kept)), dict(_flat(wanted))
    for name in dict.fromkeys([*new, *old]):
        if old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)


def _flat(fields: Manifest, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _change_text(name: str, old: Any, new: Any) -> str:
    if any(len(text) > _MAX_VALUE_LENGTH or "\n" in text for text in (str(old), str(new))):
        return f"{name} has changed"
    return f"{name} {old}, now {new}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
