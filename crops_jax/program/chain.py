"""Runs a chain of programs, and resumes it at the first unfinished step.

Each step is one of this project's programs. It runs as its own process, with a command line that is printed and that
users can run by hand. When a step is done, WORK/steps.json keeps its command, the fingerprints of its inputs and
output, its outcome line, and the seconds that it took. A step is not run again when its command, its inputs and its
output have not changed.
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
from crops_jax.artifacts.json_fields import read_object, typed
from crops_jax.errors import InputError, Interrupted, NamedFailure

STEPS = "steps.json"
COMMAND = "command.txt"
"""The command line of the whole chain, in the folder of the chain."""
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One program of the chain.

    name: the name that the user sees.
    module, arguments: the command line.
    inputs: the directories or files that the program reads.
    output: the directory or file that the program writes.
    in_place: whether the program resumes in its output by itself when it is called again.
    left_out: why the program is not run, such as that the output of another step serves; "": it is run.
    launcher: the words before the arguments, for a program of another environment. It is "python -m module" if empty.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    inputs: tuple[Path, ...]
    output: Path
    in_place: bool = False
    left_out: str = ""
    launcher: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """The command line that users can run by hand."""
        return [*(self.launcher or ("python", "-m", self.module)), *self.arguments]


class Chain:
    """Runs steps in order, and records the finished ones in `work`/steps.json.

    JAX keeps compiled programs in `work`/compilation_cache, or in `compilation_cache`, so that several steps compile
    the same program only once. JAX_COMPILATION_CACHE_DIR names another directory for them.
    """

    def __init__(self, work: Path, *, total: int, compilation_cache: Path | None = None) -> None:
        self._file = work / STEPS
        cache_directory = compilation_cache or work / "compilation_cache"
        cache = {"JAX_COMPILATION_CACHE_DIR": str(cache_directory.absolute())}
        self._environment = cache | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"} | os.environ
        self._total = total
        self._count = 0
        self._done: dict[str, Any] = read_steps(self._file)

    def run(self, step: Step) -> dict[str, Any]:
        """Runs `step` unless it is done or left out, and returns its outcome; that of a step that is left out is empty.

        Raises InputError, Interrupted or NamedFailure for the exit statuses 2, 3 and 4, and RuntimeError for others.
        """
        self._count += 1
        heading = f"[{self._count}/{self._total}] {step.name}"
        if step.left_out:
            print(f"{heading}: is left out, because {step.left_out}", file=sys.stderr)
            return {}
        described = {
            "command": step.command,
            "inputs": {str(path): artifacts.fingerprint(path) for path in step.inputs},
        }
        entry = self._done.get(step.name)
        if entry and entry.get("step") == described and entry.get("output") == _fingerprint_or_none(step.output):
            print(f"{heading}: is already done", file=sys.stderr)
            return entry["outcome"]
        arguments = list(step.arguments)
        if step.output.exists() and not step.in_place:
            arguments.append("--overwrite")
        shown = dataclasses.replace(step, arguments=tuple(arguments)).command
        print(f"{heading}\n    {shlex.join(shown)}", file=sys.stderr, flush=True)
        start = time.monotonic()
        command = [*(step.launcher or (sys.executable, "-m", step.module)), *arguments]
        outcome = _run_process(command, step.name, self._environment)
        seconds = round(time.monotonic() - start, 1)
        print(f"    {seconds:.0f} s", file=sys.stderr)
        output = _fingerprint_or_none(step.output)
        self._done[step.name] = {"step": described, "output": output, "outcome": outcome, "seconds": seconds}
        artifacts.write_text(self._file, json.dumps(self._done, indent=2, ensure_ascii=False) + "\n")
        return outcome


def _run_process(command: list[str], name: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Runs a program, passes its standard error through, and returns its outcome line as a dictionary."""
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
        raise InputError(f"step '{name}' was refused; see its message above")
    if status in (Interrupted.status, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL):
        raise Interrupted(f"step '{name}' was interrupted; call the same command again to go on")
    if status == NamedFailure.status:
        raise NamedFailure(f"step '{name}' failed; see its message above, then call the same command again to go on")
    raise RuntimeError(f"step '{name}' ended with status {status}: {shlex.join(command)}")


@contextlib.contextmanager
def _forwarded_to(process: subprocess.Popen) -> Iterator[None]:
    """Sends SIGTERM on to the child process, whose exit status then tells how it ended."""
    previous = signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    try:
        yield
    except KeyboardInterrupt:  # the terminal sent the signal to the child too
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _end_with_parent() -> Callable[[], None] | None:
    """Returns a function that a child process on Linux calls to get SIGTERM when its parent dies, or None elsewhere.

    Without it, a step would go on unnoticed.
    """
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None, use_errno=True)
    return lambda: library.prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM) and None


def _fingerprint_or_none(path: Path) -> str | None:
    return artifacts.fingerprint(path) if path.exists() else None


def read_steps(file: Path) -> dict[str, Any]:
    """Returns the finished steps of a chain by name, from its steps.json; none if it does not exist.

    Raises InputError if the file is not what `Chain` writes.
    """
    if not file.exists():
        return {}
    remedy = "remove it to run every step again"
    done = read_object(file, remedy=remedy)
    for name, entry in done.items():
        typed(file, name, entry, dict, remedy=remedy)
        if entry:
            typed(file, f"{name}.outcome", entry.get("outcome"), dict, remedy=remedy)
    return done
