"""Settings of glibc's malloc for a process that computes on a CPU: it keeps freed memory for itself.

The arrays of a step are allocated and freed at every step. If malloc returned their memory to the kernel, allocating it
again would cause page faults, which take a sixth to a quarter of the time of a step (benchmarks/page_faults.py). In
exchange the memory of the process stays at its peak, so programs call this, and no import does.
"""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # malloc.h


def keep_freed_memory() -> bool:
    """Returns True when malloc accepted the settings; changes nothing and returns False without glibc.

    It must be called before another thread allocates memory, and NumPy starts threads when it is imported: malloc
    still returns the memory of such a thread to the kernel.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # The arenas of threads consist of heaps of 64 MiB, which are unmapped when they become empty, whatever the
    # threshold.
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1), mallopt(_ARENA_MAX, 1)])
