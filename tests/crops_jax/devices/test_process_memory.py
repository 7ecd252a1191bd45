"""Kept memory shows in the count of page faults of a process that makes and frees the same array again and again."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
from crops_jax.devices import process_memory
if {keep}: assert process_memory.keep_freed_memory()
import numpy as np
for _ in range(3): np.ones(16_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): np.ones(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

FIRST = """
import runpy, sys
from crops_jax.devices import process_memory
def keep():
    print([name for name in ("numpy", "jax", "pyarrow") if name in sys.modules])
    sys.exit()
process_memory.keep_freed_memory = keep
runpy.run_module("launch.{program}", run_name="__main__")
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's mallopt")
def test_freed_memory_is_not_fetched_again():
    def faults(keep: bool) -> int:
        command = [sys.executable, "-c", SCRIPT.format(keep=keep)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults(keep=True) * 10 < faults(keep=False)


@pytest.mark.parametrize("program", ["train", "train_discriminator", "embed", "evaluate"])
def test_programs_that_compute_ask_before_anything_starts_a_thread(program):
    command = [sys.executable, "-c", FIRST.format(program=program)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_another_c_library_is_left_alone(monkeypatch):
    from crops_jax.devices import process_memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert process_memory.keep_freed_memory() is False
