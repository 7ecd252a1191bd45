"""A file held by one process: what works in place in a directory is not started twice."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from crops_jax.errors import InputError

LOCK = ".lock"
"""Name of the file that stands for a directory."""


@contextlib.contextmanager
def exclusive(
    file: Path, *, refusal: str, patience_seconds: float = 0.0, inherited_by_children: bool = False
) -> Iterator[None]:
    """Holds `file`, which is made when it is not there, until the block ends or the process does, however it ends.

    Args:
      refusal: the message of the InputError that is raised while another process holds it.
      patience_seconds: how long to wait for the other one.
      inherited_by_children: the lock goes with the last child that was started meanwhile and still runs.
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
