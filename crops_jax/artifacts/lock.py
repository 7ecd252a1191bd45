"""Locks a directory by a file, so that only one process at a time works in it."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from crops_jax.errors import InputError

LOCK = ".lock"
"""The name of the file whose lock is the lock of its directory."""


@contextlib.contextmanager
def exclusive(
    file: Path, *, refusal: str, patience_seconds: float = 0.0, inherited_by_children: bool = False
) -> Iterator[None]:
    """Locks `file` until the block ends, or until the process ends for any reason. A missing file is created.

    Args:
      file: the file to lock.
      refusal: the message of the InputError that is raised when another process has the lock.
      patience_seconds: the maximum time to wait for the other process.
      inherited_by_children: whether child processes that the block starts keep the lock until the last of them ends.
    """
    deadline = time.monotonic() + patience_seconds
    with open(file, "ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise InputError(refusal) from None
                time.sleep(0.2)
        os.set_inheritable(lock.fileno(), inherited_by_children)
        yield
