import subprocess
import sys

import pytest

from crops_jax.storage.objects.parallel import in_parallel
from tests.paths import ROOT


def test_a_signal_ends_a_program_whose_calls_do_not_return():
    """A pod that is preempted has some seconds, and a server that is down holds each call for minutes."""
    script = """
import signal, sys, threading
from crops_jax.storage.objects.parallel import THREADS, in_parallel
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
running = threading.Barrier(THREADS)
def call(number):
    if running.wait() == 0:
        print("running", flush=True)
    threading.Event().wait()
in_parallel(call, range(2 * THREADS))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "running\n"
            program.terminate()
            assert program.wait(timeout=60) == 3
        finally:
            program.kill()


def test_all_calls_are_made_before_the_first_error_is_raised():
    made = []

    def call(number: int) -> int:
        made.append(number)
        if number in (3, 5):
            raise ValueError(number)
        return -number

    assert in_parallel(call, range(3)) == [0, -1, -2]
    assert in_parallel(call, []) == []
    made.clear()
    with pytest.raises(ValueError, match="3"):
        in_parallel(call, range(50))
    assert sorted(made) == list(range(50))
