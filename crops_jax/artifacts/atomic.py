"""Files and directories that readers see whole or not at all: written under a temporary name, then renamed."""

import contextlib
import ctypes
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# fcntl.h and stdio.h of Linux: paths are relative to the working directory; swap two names.
_HERE, _RENAME_EXCHANGE = -100, 2


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


@contextlib.contextmanager
def replaced_file(path: Path, *, private: bool = False) -> Iterator[Path]:
    """A temporary name beside `path` under which the block writes a file, which becomes `path` when it ends well.

    By then the bytes are on disk (fsync), so that readers see the old file or the new one after a crash too. The file
    is removed when the block fails. The name is random: processes, on other machines too, may write one file at once.

    Args:
      path: a file in a directory that exists.
      private: the file is there, empty, when the block begins, and its owner alone may read it (mode 0600).
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
    """Writes a file under a temporary name and renames it, so that readers see the old or the new one, never half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_temporaries(directory: Path) -> None:
    """Removes what processes that were killed left in a directory under the temporary names given here.

    Only for a directory in which no other process works.
    """
    for left in directory.glob(".*.tmp"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


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
