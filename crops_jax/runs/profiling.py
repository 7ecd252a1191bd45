"""Profiler traces of a few steps, on request."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

FOLDER = "profile"
STEP_ANNOTATION = "train"
"""The name under which each step stands in a trace; the parts of crops_jax.runs.log.PARTS stand inside it."""


class ProfiledSteps:
    """Traces some steps of a run into RUN/profile, where TensorBoard's profile plugin and XProf find them.

    Of several processes the first one is traced. Steps that a resumed run has behind it are not.
    """

    def __init__(self, run: Path, first: int, count: int):
        self._folder = run / FOLDER
        self._steps = range(first, first + count if jax.process_index() == 0 else first)
        self._is_tracing = False

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Around all that one step dispatches."""
        if step not in self._steps:
            yield
            return
        if not self._is_tracing:
            jax.profiler.start_trace(str(self._folder))
            self._is_tracing = True
        with jax.profiler.StepTraceAnnotation(STEP_ANNOTATION, step_num=step):
            yield

    def after(self, step: int, result: Any) -> None:
        """Ends the trace after the last of its steps, when the `result` of that step is there."""
        if self._is_tracing and step + 1 not in self._steps:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Writes what was traced, if the run ends inside the steps."""
        if self._is_tracing:
            self._is_tracing = False
            jax.profiler.stop_trace()
            print(f"profiler trace: {self._folder}", file=sys.stderr, flush=True)
