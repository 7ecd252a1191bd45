"""The output directory of a program. It appears whole and with its manifest, or not at all."""

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
    """Yields a temporary directory beside `path`, which becomes `path`, with its manifest, at the end of the block.

    When the block fails, the directory is removed. Raises InputError when `path` is not empty and `overwrite` is not
    set, when no program of crops_jax wrote its files, when it holds work of another kind, or when it overlaps an input.
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

    Otherwise a mistyped name could destroy a run or a mining state that was expensive to make.
    """
    if not (path / MANIFEST).is_file():
        return
    manifest = read_manifest(path)
    if manifest["kind"] != kind:
        raise InputError(
            f"{path} was written by {manifest['program']} and its kind is {manifest['kind']}, not {kind}, so it is not "
            "replaced; choose another output"
        )


def check_output(
    path: Path | str, *, overwrite: bool | None, inputs: Mapping[str, Path | str | None] | None = None
) -> None:
    """Raises InputError when a program cannot write `path`; see `output_directory`.

    Args:
      path: the output of the program.
      overwrite: whether existing files of a program of crops_jax are replaced; None: the program has no --overwrite.
      inputs: the paths of the inputs by name of the argument.
    """
    path = Path(path)
    if os.fsencode(path).decode(errors="replace") != str(path):
        raise InputError(f"--output {str(path)!a} is not UTF-8; choose another output")
    for name, source in (inputs or {}).items():
        if source is None:
            continue
        output, opened = path.resolve(), Path(source).resolve()
        # An output inside of an input, with a manifest or without, would change the fingerprint of that input.
        if output == opened or output in opened.parents or opened in output.parents:
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
