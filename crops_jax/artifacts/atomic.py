"""Writes files and directories under a temporary name and renames them, so that readers never see a part of one."""

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from crops_jax.errors import InputError

# AT_FDCWD of fcntl.h on Linux means that paths are relative to the working directory. RENAME_EXCHANGE of stdio.h means
# that two names are swapped.
_WORKING_DIRECTORY, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def appears_whole(path: Path, *, replaces: bool = False) -> Iterator[Path]:
    """Yields a temporary directory beside `path`, which becomes `path` when the block ends without an error.

    When the block fails, the directory is removed. Raises InputError when `path` is a directory with files at the end,
    which another process can have written meanwhile, unless `replaces` is set. Through a link, its target is written.
    """
    if path.is_symlink():
        path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent))
    try:
        os.chmod(temporary, 0o755)
        yield temporary
        (_replace if replaces else _appear)(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def replaced_file(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside `path`. The file that the block writes to it becomes `path` at the end.

    The bytes are then on disk (fsync), so that readers see the old file or the new one even after a crash. When the
    block fails, the file is removed. The name is random, so that several processes, also of several machines, can write
    the same file at the same time.

    Args:
      path: a file in a directory that exists.
      private: whether an empty file that only its owner can read (mode 0600) exists when the block begins.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        if private:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Writes a file under a temporary name and renames it, so that readers see the whole old or the whole new file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_temporaries(directory: Path) -> None:
    """Removes the files and folders with temporary names of this module that killed processes left in a directory.

    The caller must ensure that no other process works in the directory.
    """
    for leftover in directory.glob(".*.tmp"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _appear(temporary: Path, path: Path) -> None:
    """Gives `temporary` its name, unless it has been taken since the program began."""
    try:
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise InputError(
            f"{path} exists now: another process wrote it in the meantime, so it is not replaced; use it, or choose "
            "another output"
        ) from error


def _replace(temporary: Path, path: Path) -> None:
    """Replaces `path` with `temporary`. Where the system can swap names, a kill leaves the old or the new directory."""
    if not path.exists():
        os.replace(temporary, path)
    elif not _exchange(temporary, path):
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=".old", dir=path.parent))
        os.replace(path, old / path.name)
        os.replace(temporary, path)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps the names of two directories. Returns False, and changes nothing, without the call renameat2 of Linux."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    return (
        renameat2(_WORKING_DIRECTORY, os.fsencode(one), _WORKING_DIRECTORY, os.fsencode(other), _RENAME_EXCHANGE) == 0
    )
