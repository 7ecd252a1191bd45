"""The output directory of a program: whole and with its manifest, or not there at all."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crops_jax.artifacts.atomic import appears_whole
from crops_jax.artifacts.manifest import MANIFEST, content_fingerprint, new_manifest, read_manifest, write_manifest
from crops_jax.errors import InputError


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
    check_kind(path, kind)
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


def check_kind(path: Path, kind: str) -> None:
    """Raises InputError when a directory holds work of another kind, which no program replaces or continues.

    A run or a mining state costs more than a mistyped name should take.
    """
    if not (path / MANIFEST).is_file():
        return
    kept = read_manifest(path)
    if kept["kind"] != kind:
        raise InputError(
            f"{path} was written by {kept['program']} and holds {kept['kind']}, not {kind}, so it is not replaced; "
            "choose another output"
        )


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
