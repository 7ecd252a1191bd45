"""The logs that a run writes line by line: metrics.jsonl, goodput.jsonl and TensorBoard events."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from crops_jax import artifacts
from crops_jax.devices import processes
from crops_jax.errors import InputError

METRICS = "metrics.jsonl"
GOODPUT = "goodput.jsonl"
TENSORBOARD = "tensorboard"
TIMING_FIELDS = ("examples_per_second", "tokens_per_second", "model_flops_utilization", "checkpoint_seconds")
"""The fields of metrics.jsonl that depend on the clock. All other fields are functions of the step."""

PARTS: tuple[str, ...] = ("compilation", "compute", "input_wait", "refresh", "evaluation", "checkpoint")


class RunLog:
    """The three logs of a run that continues after step `resumed_at`.

    Lines of later steps and torn lines are removed from metrics.jsonl, as if the run had not been interrupted.
    goodput.jsonl keeps its lines, because the time lost by a restart is a part of it. Of several processes, only the
    first writes, and goodput.jsonl divides the time of that process: its input wait, for example, is the time that
    process 0 waits for its own part of the batches.
    """

    def __init__(self, run: Path, *, resumed_at: int):
        self._writes = processes.current().is_first
        if not self._writes:
            return
        _keep_lines(run / METRICS, last_step=resumed_at)
        _keep_lines(run / GOODPUT, last_step=None)
        self._metrics = open(run / METRICS, "a", encoding="utf-8")  # noqa: SIM115
        self._goodput = open(run / GOODPUT, "a", encoding="utf-8")  # noqa: SIM115
        from tensorboardX import SummaryWriter  # here, because programs that only read logs need no writer

        self._tensorboard = SummaryWriter(str(run / TENSORBOARD), purge_step=resumed_at + 1)

    def metrics(self, line: dict[str, Any]) -> None:
        """Writes and flushes one line, which holds "step". Its numbers also become TensorBoard scalars."""
        if not self._writes:
            return
        _write_line(self._metrics, line)
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                self._tensorboard.add_scalar(name, value, line["step"])

    def goodput(self, line: dict[str, Any]) -> None:
        """Writes and flushes one line of goodput.jsonl."""
        if self._writes:
            _write_line(self._goodput, line)

    def close(self) -> None:
        if not self._writes:
            return
        self._metrics.close()
        self._goodput.close()
        self._tensorboard.close()


class Stopwatch:
    """A stopwatch that divides the time since its last reading into PARTS. Time of no part is "other".

    Attributes:
      part: the part that is being measured, or "other".
      entered: the number of times that a part began or ended.
    """

    def __init__(self) -> None:
        self.part, self.entered = "other", 0
        self._start = time.monotonic()
        self._spent = dict.fromkeys(PARTS, 0.0)

    @contextlib.contextmanager
    def measure(self, part: str, *, computing: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Measures the time of the block.

        Args:
          part: one of PARTS.
          computing: a function that is called at the end. It returns whether the devices were busy during the whole
            block. Then nothing waited for the block, and its time counts as compute.
        """
        import jax  # here, because programs that only read logs need no JAX

        begin, before = time.monotonic(), self.part
        self.part, self.entered = part, self.entered + 1
        try:
            with jax.profiler.TraceAnnotation(part):
                yield
        finally:
            self.part, self.entered = before, self.entered + 1
            self._spent["compute" if computing() else part] += time.monotonic() - begin

    def spent(self, part: str) -> float:
        """Returns the seconds of a part since the last reading."""
        return self._spent[part]

    def read(self) -> dict[str, float]:
        """Returns the seconds since the last reading, in total and by part, and goodput: the share of compute."""
        now = time.monotonic()
        total = now - self._start
        parts = {f"{part}_seconds": round(seconds, 4) for part, seconds in self._spent.items()}
        other = max(total - sum(self._spent.values()), 0.0)
        reading = {"seconds": round(total, 4), **parts, "other_seconds": round(other, 4)}
        reading["goodput"] = round(self._spent["compute"] / total, 4) if total > 0 else 0.0
        self._start, self._spent = now, dict.fromkeys(PARTS, 0.0)
        return reading


def finite_number(value: Any) -> float | None:
    """Returns a number for a line; None for NaN and infinity, which JSON lacks, as in the loss of a skipped step."""
    return float(value) if math.isfinite(value) else None


def read_metrics(run: Path | str) -> list[dict[str, Any]]:
    """Reads the whole lines of RUN/metrics.jsonl. The run can still train."""
    return _whole_lines(Path(run) / METRICS)


def read_goodput(run: Path | str) -> list[dict[str, Any]]:
    """Reads the whole lines of RUN/goodput.jsonl. The run can still train."""
    return _whole_lines(Path(run) / GOODPUT)


def check_log(file: Path) -> tuple[list[dict[str, Any]], bool]:
    """Returns the lines of a log, and whether its last line is torn, as after a killed run.

    Raises InputError, which names the line, when another line is not a JSON object, or when a line of metrics.jsonl has
    no step.
    """
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(_lines(file), start=1):
        if line is None:
            return lines, True
        if isinstance(line, Exception):
            raise InputError(f"{file}, line {number}: not a JSON object ({line}); remove the line") from line
        if file.name == METRICS and not isinstance(line.get("step"), int):
            raise InputError(f"{file}, line {number}: no step in it; remove the line")
        lines.append(line)
    return lines, False


def _keep_lines(file: Path, *, last_step: int | None) -> None:
    """Rewrites a log without torn lines and without lines of steps after `last_step`."""
    if not file.exists():
        return
    kept = [line for line in _whole_lines(file) if last_step is None or line.get("step", 0) <= last_step]
    text = "".join(_as_line(line) for line in kept)
    if text != file.read_text(encoding="utf-8", errors="replace"):
        artifacts.write_text(file, text)


def _whole_lines(file: Path) -> list[dict[str, Any]]:
    return [line for line in _lines(file) if isinstance(line, dict)]


def _lines(file: Path) -> Iterator[dict[str, Any] | Exception | None]:
    """Yields each line of a log, the error when the line is not a JSON object, and None for a torn last line."""
    for text in file.read_bytes().splitlines(keepends=True) if file.exists() else []:
        if not text.endswith(b"\n"):
            yield None
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield error
            continue
        yield line if isinstance(line, dict) else ValueError("no object")


def _as_line(line: dict[str, Any]) -> str:
    return json.dumps(line) + "\n"


def _write_line(file: TextIO, line: dict[str, Any]) -> None:
    file.write(_as_line(line))
    file.flush()
