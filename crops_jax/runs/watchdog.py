"""A watch over the progress of a run: one that hangs ends with the stacks of its threads, instead of waiting forever.

Heartbeats tell the processes of a cluster that one of them is dead. They do not tell that one waits in a file system, a
worker process or a collective operation. For that, each process watches its own training loop.
"""

import contextlib
import faulthandler
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crops_jax.devices import processes
from crops_jax.errors import NamedFailure
from crops_jax.runs.log import Stopwatch
from crops_jax.storage.names import shown
from crops_jax.storage.remote import run as remote_run

_STEPS = 20
"""A step that takes as many times the median step counts as hung, if that is longer than the limit."""
_PATIENT_FACTOR = 6
"""The number of limits that a part may take whose whole work shows no progress in between."""
_PATIENT = ("compilation", "refresh", "evaluation", "checkpoint")
"""The parts that have more time, in this process or in one that it waits for."""
# The name under which a process tells the others that it has written its stacks.
_HUNG = "hung"
# The name under which a process tells the others, at each look, which part it does.
_PART = "part"
# The number of last steps of which the median is taken.
_RECENT_STEPS = 100


def hang_file(run: Path, process: int) -> Path:
    """Returns the file in which a process of a run leaves its stacks when it hangs."""
    return run / f"hang-{process}.txt"


class Watchdog:
    """A thread that ends this process when neither a step nor a part of one (crops_jax.runs.log.PARTS) has ended.

    The limit is the greater of `limit_seconds` and 20 median steps; compilation, a refresh, evaluation and checkpoints
    have six times as long. A process that is stopped and continued (SIGSTOP, a suspended machine) does not count the
    pause.

    Of several processes, most wait for the one that hangs. The first that notices lets all of them write their stacks,
    and then ends them.
    """

    def __init__(
        self,
        run: Path,
        watch: Stopwatch,
        *,
        limit_seconds: float,
        poll_seconds: float = 5.0,
        now: Callable[[], float] = time.monotonic,
    ):
        """
        Args:
          run: the folder of the run, in which hang-PROCESS.txt is written.
          watch: the stopwatch of the training loop, which knows the part that is being done.
          limit_seconds: the shortest time in seconds without progress after which a run counts as hung; 0: never.
          poll_seconds: the longest time in seconds between two looks.
          now: the clock, in seconds.
        """
        self._run, self._watch, self._limit_seconds, self._now = run, watch, limit_seconds, now
        self._poll_seconds = min(limit_seconds / 10, poll_seconds)
        self._steps: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._last_step: float | None = None
        self._steps_done = 0
        self._closed = threading.Event()
        self._idle_seconds = 0.0
        self._seen: Any = None

    def start(self) -> "Watchdog":
        """Starts the thread, if there is a limit."""
        if self._limit_seconds:
            threading.Thread(target=self._follow, name="watchdog", daemon=True).start()
        return self

    def step_done(self) -> None:
        """Counts a step as progress. The loop calls it at the end of each step."""
        now = self._now()
        if self._last_step is not None:
            self._steps.append(now - self._last_step)
        self._last_step = now
        self._steps_done += 1

    def close(self) -> None:
        """Ends the watch."""
        self._closed.set()

    def limit(self) -> float:
        """Returns the time in seconds without progress after which the run counts as hung.

        It depends on the present part, and of several processes on those of the others, for which this one may wait.
        """
        steps = list(self._steps)
        limit = max(self._limit_seconds, _STEPS * statistics.median(steps) if steps else 0.0)
        parts = {self._watch.part, *processes.current().published(_PART).values()}
        return limit * (_PATIENT_FACTOR if parts & set(_PATIENT) else 1)

    def look(self, seconds: float) -> bool:
        """Returns whether the run hangs. seconds: the time since the last look, of which pauses are no part."""
        progress = (self._watch.entered, self._steps_done)
        self._idle_seconds = self._idle_seconds + seconds if progress == self._seen else 0.0
        self._seen = progress
        return self._idle_seconds > self.limit()

    def _follow(self) -> None:
        with contextlib.suppress(NamedFailure):  # a service that is gone ends this process by itself
            self._follow_until_hung()

    def _follow_until_hung(self) -> None:
        before = self._now()
        while not self._closed.wait(self._poll_seconds):
            processes.current().publish(_PART, self._watch.part)
            now = self._now()
            # A look that comes much later than it should has slept with the whole process.
            if self.look(min(now - before, 2 * self._poll_seconds)):
                self._end_process()
                return
            if processes.current().published(_HUNG):
                self._write_stacks()  # the one that found the hang ends this process
                return
            before = now

    def _write_stacks(self) -> tuple[Path, str]:
        """Writes the stacks of all threads, and returns their file and the name of the part that is being done."""
        cluster = processes.current()
        file, stage = hang_file(self._run, cluster.index), self._watch.part.replace("_", " ")
        with open(file, "w", encoding="utf-8") as stacks:
            print(f"process {cluster.index} of {cluster.count}, stage {stage}", file=stacks, flush=True)
            faulthandler.dump_traceback(stacks, all_threads=True)
        with contextlib.suppress(NamedFailure):
            cluster.publish(_HUNG, stage)
        if remote := remote_run.of(self._run):
            remote.send_soon(file.name)
        return file, stage

    def _wait_for_stacks(self) -> None:
        """Waits a little until the other processes, of which one may be what hangs, have written their stacks too."""
        cluster = processes.current()
        deadline = self._now() + 4 * self._poll_seconds
        with contextlib.suppress(NamedFailure):
            while len(cluster.published(_HUNG)) < cluster.count and self._now() < deadline:
                self._closed.wait(self._poll_seconds / 10)

    def _end_process(self) -> None:
        """Writes the stacks of all processes, names the part that hangs, and ends this process and then the others."""
        cluster = processes.current()
        file, stage = self._write_stacks()
        error = NamedFailure(
            f"no progress for {self._idle_seconds:.0f} s in the stage {stage}; the stacks of all threads are in "
            f"{file}; the last checkpoint is kept, and the same command goes on from it (--training.hang-seconds is "
            "the limit)"
        )
        if cluster.count > 1:
            self._wait_for_stacks()
            cluster.failing(error)  # ends this process, unless all of them hang
        print(f"error: {shown(str(error))}", file=sys.stderr, flush=True)
        cluster.end(error.status)
