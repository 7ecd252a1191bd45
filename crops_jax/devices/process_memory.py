"""glibc's malloc for a process that computes on a CPU: keep freed memory instead of giving it back to the kernel.

The arrays of a step are made and freed at every step; returned to the kernel they come back as page faults, which cost
a sixth to a quarter of the step (benchmarks/page_faults.py). Memory stays at its peak in exchange, so this is for
programs, never for an import.
"""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # malloc.h


def keep_freed_memory() -> bool:
    """True when the settings were taken; False, with nothing changed, where the C library is not glibc.

    To be called before another thread asks for memory, and NumPy starts some when it is imported: what such a thread
    holds is given back as before.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Arenas of threads are made of heaps of 64 MiB, which are unmapped when they fall empty, whatever the threshold.
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1), mallopt(_ARENA_MAX, 1)])
