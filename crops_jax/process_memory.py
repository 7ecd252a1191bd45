"""glibc's malloc for a process that trains: keep freed memory instead of giving it back to the kernel after each step.

On a CPU the arrays of a step are made and freed at every step; returned to the kernel they come back as page faults,
which cost a quarter to a third of the step (benchmarks/page_faults.py). Memory stays at its peak in exchange, so this
is for programs, never for an import.
"""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> bool:
    """True when the settings were taken; False, with nothing changed, where the C library is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # One arena for all threads, as is sometimes advised, raised the peak by two thirds (MiniLM, 32 x 128 tokens).
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1)])
