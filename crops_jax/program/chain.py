"""A chain of programs that is resumed at its first unfinished step.

Each step is one of this project's programs, run as a process of its own with a command line that is printed and can be
run by hand. What it was run with, what it read and its outcome line are kept in WORK/steps.json once it is done; a
step whose command and inputs are still the same, and whose output is still there, is not run again.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from crops_jax import artifacts
from crops_jax.errors import InputError, Interrupted, NamedFailure

STEPS = "steps.json"
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One program of the chain.

    name: what the user sees. module and arguments: its command line. inputs: the directories or files that it reads.
    output: the directory or file that it writes. in_place: it resumes in its output by itself when called again.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    inputs: tuple[Path, ...]
    output: Path
    in_place: bool = False

    @property
    def command(self) -> list[str]:
        return ["python", "-m", self.module, *self.arguments]


class Chain:
    """Runs steps in order and remembers in `work`/steps.json what is done.

    Compiled programs are kept in `work`/compilation_cache, so that what several steps compile is compiled once;
    JAX_COMPILATION_CACHE_DIR names another place.
    """

    def __init__(self, work: Path, *, total: int) -> None:
        self._file = work / STEPS
        cache = {"JAX_COMPILATION_CACHE_DIR": str(work.absolute() / "compilation_cache")}
        self._environment = cache | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"} | os.environ
        self._total = total
        self._count = 0
        self._done: dict[str, Any] = _read_done(self._file)

    def run(self, step: Step) -> dict[str, Any]:
        """The outcome of `step`, which is run unless it is done. Raises what its exit status means."""
        self._count += 1
        heading = f"[{self._count}/{self._total}] {step.name}"
        described = {
            "command": step.command,
            "inputs": {str(path): artifacts.fingerprint(path) for path in step.inputs},
        }
        kept = self._done.get(step.name)
        if kept and kept["step"] == described and kept["output"] == _fingerprint_or_none(step.output):
            print(f"{heading}: done before", file=sys.stderr)
            return kept["outcome"]
        arguments = list(step.arguments)
        if step.output.exists() and not step.in_place:
            arguments.append("--overwrite")
        print(f"{heading}\n    {shlex.join(['python', '-m', step.module, *arguments])}", file=sys.stderr, flush=True)
        start = time.monotonic()
        command = [sys.executable, "-m", step.module, *arguments]
        outcome = _run_process(command, step.name, self._environment)
        print(f"    {time.monotonic() - start:.0f} s", file=sys.stderr)
        self._done[step.name] = {"step": described, "output": _fingerprint_or_none(step.output), "outcome": outcome}
        artifacts.write_text(self._file, json.dumps(self._done, indent=2, ensure_ascii=False) + "\n")
        return outcome


def _run_process(command: list[str], name: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Runs a program, standard error passed through, and reads its outcome line."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        close_fds=False,
        preexec_fn=_end_with_parent(),
        env=dict(environment),
    )
    with _forwarded_to(process):
        output, _ = process.communicate()
    status = process.returncode
    if status == 0:
        lines = output.strip().splitlines()
        return json.loads(lines[-1]) if lines else {}
    if status == InputError.status:
        raise InputError(f"step '{name}' was refused; its message stands above")
    if status in (Interrupted.status, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL):
        raise Interrupted(f"step '{name}' was interrupted; call the same command again to go on")
    if status == NamedFailure.status:
        raise NamedFailure(f"step '{name}' failed; its message stands above. Call the same command again to go on")
    raise RuntimeError(f"step '{name}' ended with status {status}: {shlex.join(command)}")


@contextlib.contextmanager
def _forwarded_to(process: subprocess.Popen) -> Iterator[None]:
    """SIGTERM goes to the child, whose exit status then says how it ended."""
    previous = signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    try:
        yield
    except KeyboardInterrupt:  # the terminal has sent it to the child too
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _end_with_parent() -> Callable[[], None] | None:
    """On Linux a child gets SIGTERM when its parent is killed, so that no step goes on unseen."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None, use_errno=True)
    return lambda: library.prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM) and None


def _fingerprint_or_none(path: Path) -> str | None:
    return artifacts.fingerprint(path) if path.exists() else None


def _read_done(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON ({error}); remove it to run every step again") from error
