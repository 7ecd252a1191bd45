"""Kept memory shows in the count of page faults of a process that makes and frees the same array again and again."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, threading
from crops_jax import process_memory
if {keep}: assert process_memory.keep_freed_memory()
import numpy as np
def work(rounds):
    for _ in range(rounds): np.ones(({size}, 1_000_000))
def run(rounds):
    if not {thread}: return work(rounds)
    thread = threading.Thread(target=work, args=(rounds,))
    thread.start()
    thread.join()
run(3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
run(5)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

FIRST = """
import runpy, sys
from crops_jax import process_memory
def keep():
    print([name for name in ("numpy", "jax", "pyarrow") if name in sys.modules])
    sys.exit()
process_memory.keep_freed_memory = keep
runpy.run_module("launch.{program}", run_name="__main__")
"""


def said(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's mallopt")
@pytest.mark.parametrize(("size", "thread"), [(16, False), (4, True)])
def test_freed_memory_is_not_fetched_again(size, thread):
    """In a thread: arrays that fit the heaps of 64 MiB of which a thread's own arena is made."""
    kept, fetched = (int(said(FAULTS.format(keep=keep, size=size, thread=thread))) for keep in (True, False))
    assert kept * 10 < fetched


@pytest.mark.parametrize("program", ["train", "train_discriminator", "embed", "evaluate"])
def test_programs_that_compute_ask_before_anything_starts_a_thread(program):
    assert said(FIRST.format(program=program)) == "[]"


def test_another_c_library_is_left_alone(monkeypatch):
    from crops_jax import process_memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert process_memory.keep_freed_memory() is False
