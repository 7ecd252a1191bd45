"""Writes profiler traces of a few steps when the configuration requests them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from crops_jax.program.progress import say

FOLDER = "profile"
STEP_ANNOTATION = "train"
"""The name of each step in a trace. The parts of crops_jax.runs.log.PARTS are inside it."""


class ProfiledSteps:
    """A tracer of some steps of a run. TensorBoard's profile plugin and XProf read its files from RUN/profile.

    Only the first of several processes is traced. A resumed run does not trace steps before its checkpoint.
    """

    def __init__(self, run: Path, first: int, count: int):
        self._folder = run / FOLDER
        self._steps = range(first, first + count if jax.process_index() == 0 else first)
        self._is_tracing = False

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Surrounds the dispatch of one step. The trace starts with the first of the steps."""
        if step not in self._steps:
            yield
            return
        if not self._is_tracing:
            jax.profiler.start_trace(str(self._folder))
            self._is_tracing = True
        with jax.profiler.StepTraceAnnotation(STEP_ANNOTATION, step_num=step):
            yield

    def after(self, step: int, result: Any) -> None:
        """Ends the trace after the last of its steps, when the `result` of that step is computed."""
        if self._is_tracing and step + 1 not in self._steps:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Writes the trace if one is running, also when the run ends before the last of the steps."""
        if self._is_tracing:
            self._is_tracing = False
            jax.profiler.stop_trace()
            say(f"profiler trace: {self._folder}")
