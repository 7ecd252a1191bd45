"""Files and directories that readers see whole or not at all: written under a temporary name, then renamed."""

import contextlib
import ctypes
import os
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
