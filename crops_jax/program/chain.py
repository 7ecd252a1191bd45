"""Runs a chain of programs, and resumes it at the first unfinished step.

Each step is one of this project's programs. It runs as its own process, with a command line that is printed and that
users can run by hand. When a step is done, WORK/steps.json keeps its command, the fingerprints of its inputs and
output, its outcome line and its seconds. A step is not run again when its command, its inputs and its output have not
changed.

An interrupt is reported once, by the chain. Its programs ignore Ctrl-C, which a terminal sends to all of them; the
chain passes each SIGINT and SIGTERM on as SIGTERM, and a program returns its message instead of printing it.
"""

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from crops_jax import artifacts
from crops_jax.artifacts.json_fields import read_object, typed
from crops_jax.errors import InputError, Interrupted, NamedFailure
from crops_jax.program.place import INTERRUPTED, Place
from crops_jax.program.progress import duration, say

STEPS = "steps.json"
COMMAND = "command.txt"
"""The command line of the whole chain, in the folder of the chain."""
_CHILD = (
    *(sys.executable, "-I", "-S", "-c"),
    "import runpy, sys; runpy.run_path(sys.argv[1])['become'](int(sys.argv[2]), sys.argv[3:])",
    str(Path(__file__).with_name("child.py")),
)
"""The words before the number of this process and the command of a step (crops_jax.program.child)."""


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

    def __init__(
        self, work: Path, *, total: int = 0, planned: Sequence[Step] = (), compilation_cache: Path | None = None
    ) -> None:
        """
        Args:
          work: the directory of the chain.
          total: the number of steps.
          planned: all steps in their order, if they are known before; then the time that is left is estimated.
          compilation_cache: the directory of compiled programs.
        """
        self._file = work / STEPS
        cache_directory = compilation_cache or work / "compilation_cache"
        cache = {"JAX_COMPILATION_CACHE_DIR": str(cache_directory.absolute())}
        self._environment = cache | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"} | os.environ
        self._planned, self._total = planned, total or len(planned)
        self._count = 0
        self._start = time.monotonic()
        self._done: dict[str, Any] = read_steps(self._file)

    def run(self, step: Step) -> dict[str, Any]:
        """Runs `step` unless it is done or left out, and returns its outcome; that of a step that is left out is empty.

        Raises InputError, Interrupted or NamedFailure for the exit statuses 2, 3 and 4, and RuntimeError for others.
        """
        self._count += 1
        place = self._place(step)
        heading = f"{place.label} {step.name}"
        if step.left_out:
            say(f"{heading}: is left out, because {step.left_out}")
            return {}
        described = {
            "command": step.command,
            "inputs": {str(path): artifacts.fingerprint(path) for path in step.inputs},
        }
        entry = self._done.get(step.name)
        if entry and entry.get("step") == described and entry.get("output") == _fingerprint_or_none(step.output):
            say(f"{heading}: is already done")
            return entry["outcome"]
        arguments = list(step.arguments)
        if step.output.exists() and not step.in_place:
            arguments.append("--overwrite")
        shown = dataclasses.replace(step, arguments=tuple(arguments)).command
        say(f"{heading}{self._times(place)}\n    {shlex.join(shown)}")
        start = time.monotonic()
        command = [*(step.launcher or (sys.executable, "-m", step.module)), *arguments]
        stopped: Interrupted | None = None
        try:
            outcome = _run_process(command, step.name, self._environment | place.environment())
        except _DoneWhenInterrupted as done:
            outcome, stopped = done.outcome, done
        seconds = time.monotonic() - start
        say(f"    {seconds:.0f} s")
        self._done[step.name] = {
            "step": described,
            "output": _fingerprint_or_none(step.output),
            "outcome": outcome,
            "seconds": round(seconds, 1),
        }
        artifacts.write_text(self._file, json.dumps(self._done, indent=2, ensure_ascii=False) + "\n")
        if stopped is not None:
            raise stopped
        return outcome

    def _place(self, step: Step) -> Place:
        """Returns the place of the present step, with the time of later ones from the last steps of their programs."""
        seconds = {
            one.module: float(entry["seconds"])
            for one in self._planned
            if isinstance((entry := self._done.get(one.name) or {}).get("seconds"), int | float)
        }
        later = [one.module for one in self._planned[self._count :]]
        same = later.count(step.module) if step.module not in seconds else 0
        return Place(
            number=self._count,
            total=self._total,
            started=time.time(),
            expected=seconds.get(step.module),
            later=sum(seconds.get(module, 0.0) for module in later),
            same=same,
            unknown=sum(module not in seconds for module in later) - same
            if self._planned
            else self._total - self._count,
        )

    def _times(self, place: Place) -> str:
        """Returns the time since the chain began and the time that is left, as far as they are known."""
        spent = time.monotonic() - self._start
        parts = [f"{duration(spent)} spent"] if place.number > 1 else []
        if place.later or place.expected:
            at_least = "over" if place.unknown or place.expected is None else "about"
            parts.append(f"{at_least} {duration(place.left(0.0, now=place.started))} left")
        return f" ({', '.join(parts)})" if parts else ""


class _DoneWhenInterrupted(Interrupted):
    """The chain was interrupted, and its step was done nevertheless, with this outcome."""

    def __init__(self, name: str, outcome: dict[str, Any]) -> None:
        super().__init__(f"interrupted after step '{name}'; call the same command again to go on")
        self.outcome = outcome


def _run_process(command: list[str], name: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Runs a program, passes its standard error through, and returns its outcome line as a dictionary."""
    with _SignalsPassedOn() as signals:
        with _blocked(signal.SIGINT):
            process = subprocess.Popen(
                [*_CHILD, str(os.getpid()), *command],
                stdout=subprocess.PIPE,
                text=True,
                close_fds=False,
                env=dict(environment),
            )
        signals.pass_to(process)
        output, _ = process.communicate()
    status = process.returncode
    lines = output.strip().splitlines()
    if status == 0:
        outcome = json.loads(lines[-1]) if lines else {}
        if signals.arrived:
            raise _DoneWhenInterrupted(name, outcome)
        return outcome
    if status == InputError.status:
        raise InputError(f"step '{name}' was refused; see its message above")
    if status in (Interrupted.status, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL):
        returned = _interrupt_message(lines[-1]) if lines else None
        raise Interrupted(f"step '{name}': {returned or 'interrupted; call the same command again to go on'}")
    if status == NamedFailure.status:
        raise NamedFailure(f"step '{name}' failed; see its message above, then call the same command again to go on")
    raise RuntimeError(f"step '{name}' ended with status {status}: {shlex.join(command)}")


def _interrupt_message(line: str) -> str | None:
    """Returns the message of an interrupt in the last line of a program, or None for another line."""
    with contextlib.suppress(json.JSONDecodeError):
        found = json.loads(line)
        if isinstance(found, dict) and isinstance(found.get(INTERRUPTED), str):
            return found[INTERRUPTED]
    return None


class _SignalsPassedOn:
    """A context that sends SIGTERM to a child process for each SIGTERM and SIGINT of this process.

    The exit status of the child then tells how it ended.
    """

    def __init__(self) -> None:
        self.arrived = False
        self._child: subprocess.Popen | None = None
        self._previous: dict[int, Any] = {}

    def pass_to(self, child: subprocess.Popen) -> None:
        """Sends the signals to `child` from now on, also those that arrived before it was started."""
        self._child = child
        if self.arrived:
            child.send_signal(signal.SIGTERM)

    def _pass_on(self, *_: Any) -> None:
        self.arrived = True
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)

    def __enter__(self) -> "_SignalsPassedOn":
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:  # a chain that is a step of another one ignores Ctrl-C
                self._previous[number] = signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _blocked(number: int) -> Iterator[None]:
    """Holds a signal back until the block ends. A process that is started in the block begins with it blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
