"""Becomes a program of a chain: one that ignores Ctrl-C, and on Linux gets SIGTERM when the chain dies.

A process of its own calls `become` before anything else is loaded. Without the signal, a step would go on unnoticed
after its chain is killed. Both settings stay when the program takes the place of this process. They are made here, and
not between fork and exec, because the process of a chain can have threads (those of JAX), and Python code in a fork of
it can then wait forever.

The chain starts this process with SIGINT blocked, so that a Ctrl-C that comes first is ignored too.
"""

import ctypes
import os
import signal
import sys

_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_CANNOT_START = 2
"""The exit status when the program is not there; that of crops_jax.errors.InputError, which is not loaded here."""


def become(parent: int, command: list[str]) -> None:
    """Runs `command` in place of this process, unless the process `parent`, which started it, has ended already."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(_CANNOT_START)
