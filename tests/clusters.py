"""Several processes of one program on this machine, joined over the loopback."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.paths import ROOT

PATIENCE_SECONDS = 300


class Ended(NamedTuple):
    status: int
    output: str
    errors: str


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(
    arguments: Sequence[str],
    *,
    processes: int,
    devices: int,
    environment: Mapping[str, str] | None = None,
    extra: Mapping[int, Sequence[str]] | None = None,
    own_environment: Mapping[int, Mapping[str, str]] | None = None,
) -> list[subprocess.Popen]:
    """Starts `python -m ARGUMENTS` so many times, each with so many CPU devices.

    Args:
      environment: beside this process's own.
      extra: further arguments of some processes, by number.
      own_environment: further variables of some processes, by number.
    """
    address = f"127.0.0.1:{free_port()}"
    started = []
    for index in range(processes):
        several = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(index),
        }
        own = {
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            # The second flag halves the time of compilation.
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0",
        }
        command = [sys.executable, "-m", *arguments, *(extra or {}).get(index, ())]
        variables = os.environ | own | (several if processes > 1 else {}) | dict(environment or {})
        variables |= (own_environment or {}).get(index, {})
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=ROOT, env=variables, text=True, **pipes))
    return started


def finish(started: Sequence[subprocess.Popen]) -> list[Ended]:
    """Waits for all; kills what is left when one takes too long."""
    try:
        ended = []
        for process in started:
            output, errors = process.communicate(timeout=PATIENCE_SECONDS)
            ended.append(Ended(process.returncode, output, errors))
        return ended
    finally:
        for process in started:
            process.kill()


def run(arguments: Sequence[str], **options) -> list[Ended]:
    return finish(start(arguments, **options))
