"""A directory that a program works in: begun once, taken up by later calls of the same command, refused to others.

Its manifest is there from the beginning and says what the work is made from: program, version, arguments and inputs.
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
# Fields that every manifest has and that `difference` compares in its own way, or that say nothing a reader could use.
_OWN_FIELDS = {"program", "kind", "version", "arguments", "inputs", "fingerprint", "identity"}
_MOST_DIFFERENCES = 5
_LONGEST_VALUE = 80


def claim(
    directory: Path,
    manifest: Manifest,
    *,
    overwrite: bool | None,
    inputs: Mapping[str, Path | str | None],
    remedy: str,
    fill: Callable[[Path], None] | None = None,
) -> bool:
    """Begins the work in a directory (True), or takes up that of an earlier call with the same manifest (False).

    Args:
      overwrite: whether a directory of ours is begun anew, whatever it was made from; None: the program has no
        --overwrite.
      inputs: what the directory must not overlap, by name of the argument.
      remedy: what to do about a directory that was made from other things; the end of the message.
      fill: see `begin`.

    Raises InputError when the directory was made from other things, naming the differences, or must not be written.
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
    """Makes a directory with its manifest; what `overwrite` permits to replace is removed.

    Args:
      fill: writes what else a new directory holds into the directory that it is given; it appears together with the
        manifest or not at all.

    Raises InputError as `crops_jax.artifacts.check_output`, whose arguments the others are.
    """
    check_output(directory, overwrite=overwrite, inputs=inputs)
    check_kind(directory, manifest["kind"])
    if fill is not None:
        with appears_whole(directory, replaces=bool(overwrite)) as temporary:
            fill(temporary)
            write_manifest(temporary, manifest)
        return
    if directory.exists() and any(directory.iterdir()):
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_manifest(directory, manifest)


def check_same(directory: Path, manifest: Manifest, *, remedy: str, flags: Mapping[str, str] | None = None) -> None:
    """Raises InputError, naming the differences, when a directory was made from other things than a manifest says.

    Args:
      remedy: what to do then; the end of the message.
      flags: see `difference`.
    """
    kept = read_manifest(directory)
    if not is_same(kept, manifest):
        raise InputError(
            f"{directory} was made from other things ({difference(kept, manifest, flags=flags)}); {remedy}"
        )


def check_written_by(directory: Path, *, program: str, kind: str, noun: str) -> None:
    """Raises InputError when a directory with a manifest is that of another program or of another kind.

    Args:
      noun: what the message calls a directory of this program, such as "run".
    """
    kept = read_manifest(directory)
    if (kept["program"], kept["kind"]) != (program, kind):
        raise InputError(
            f"{directory} was written by {kept['program']} and is no {noun} of {program}; choose another --output"
        )


def is_same(kept: Manifest, wanted: Manifest) -> bool:
    """Returns whether two manifests are of the same program, arguments and inputs.

    The fingerprint says so, or, where it is that of the content once the work is done, the field identity.
    """
    return kept.get("identity", kept["fingerprint"]) == wanted.get("identity", wanted["fingerprint"])


def difference(kept: Manifest, wanted: Manifest, *, flags: Mapping[str, str] | None = None) -> str:
    """Returns what differs between two manifests, as text for the brackets of a message.

    Another program or kind is named alone. Otherwise fields of the manifests come first, then arguments, by flag or,
    inside of a configuration, by path, then inputs; at most five.

    Args:
      kept: the manifest of what is there.
      wanted: that of what is asked for now; of its fields beside the usual ones only those that it has are compared.
      flags: the flags of arguments that are named otherwise than their fields, such as {"from_time": "--from"}.
    """
    for name in ("program", "kind"):
        if kept[name] != wanted[name]:
            return f"{name} {kept[name]}, now {wanted[name]}"
    differences = list(_differences(kept, wanted, flags or {}))
    more = len(differences) - _MOST_DIFFERENCES
    named = "; ".join(differences[:_MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
    return named or "its manifest differs"


def _differences(kept: Manifest, wanted: Manifest, flags: Mapping[str, str]) -> Iterator[str]:
    fields = ["version", *(name for name in wanted if name not in _OWN_FIELDS)]
    for name, old, new in _changed(*({name: manifest.get(name) for name in fields} for manifest in (kept, wanted))):
        yield _in_words(name, old, new)
    for name, old, new in _changed(kept["arguments"], wanted["arguments"]):
        yield _in_words(flags.get(name) or (name if "." in name else _flag(name)), old, new)
    prints = ({name: read["fingerprint"] for name, read in manifest["inputs"].items()} for manifest in (kept, wanted))
    for name, _, _ in _changed(*prints):
        yield f"{_flag(name)} has changed"


def _changed(kept: Manifest, wanted: Manifest) -> Iterator[tuple[str, Any, Any]]:
    """Name, old and new value of what differs; the name of a nested field is its path, and what is absent is None."""
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


def _in_words(name: str, old: Any, new: Any) -> str:
    if any(len(text) > _LONGEST_VALUE or "\n" in text for text in (str(old), str(new))):
        return f"{name} has changed"
    return f"{name} {old}, now {new}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
