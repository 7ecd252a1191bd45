"""Kept memory shows in the count of page faults of a process that makes and frees the same array again and again."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
from crops_jax import process_memory
if {keep}: assert process_memory.keep_freed_memory()
import numpy as np
for _ in range(3): np.ones(16_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): np.ones(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's mallopt")
def test_freed_memory_is_not_fetched_again():
    def faults(keep: bool) -> int:
        command = [sys.executable, "-c", SCRIPT.format(keep=keep)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults(keep=True) * 10 < faults(keep=False)


def test_another_c_library_is_left_alone(monkeypatch):
    from crops_jax import process_memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert process_memory.keep_freed_memory() is False
