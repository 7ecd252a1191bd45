"""The status of a run, read from its folder while it trains or afterwards."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from crops_jax.artifacts.json_fields import typed
from crops_jax.config.stored import CONFIG, read_sections
from crops_jax.runs.checkpoint_folder import FOLDER, best_step, read_progress, saved_steps
from crops_jax.runs.log import GOODPUT, METRICS, read_goodput, read_metrics
from crops_jax.runs.step_times import newest_times

# The number of lines of metrics.jsonl whose median is the present speed, so that one slow line does not decide it.
_RECENT_LINES = 5
_METRICS = ("step", "steps", "loss", "temperature", "learning_rate", "examples_per_second")
_REMEDY = "check that it is the configuration of a run"


def run_status(run: Path) -> dict[str, Any]:
    """Returns step, loss, speed, time left and checkpoints of a run. Values that are not known yet are None.

    step and loss are those of the last whole line of metrics.jsonl. seconds_left is the time of the remaining steps at
    the median speed of the last lines. goodput is the share of steps in the whole time, restarts included, and
    input_wait is the share of waits for batches. With several processes, both are shares of the first process;
    step_seconds_* and input_wait_seconds_* are the times of a step over all processes (crops_jax.runs.step_times).
    ended is the reason why a finished run ended.

    Raises InputError when the configuration or a log is damaged.
    """
    lines, goodput = _numbers(run / METRICS, read_metrics(run)), _numbers(run / GOODPUT, read_goodput(run))
    configured, batch, patience = _plan(run)
    steps = configured or next((line["steps"] for line in reversed(goodput) if "steps" in line), None)
    last = lines[-1] if lines else {}
    speed = _median([line["examples_per_second"] for line in lines[-_RECENT_LINES:] if "examples_per_second" in line])
    step = last.get("step", 0)
    seconds_left = None
    if steps is not None and speed:
        seconds_left = round((steps - step) * batch / speed, 1)
    saved = saved_steps(run / FOLDER)
    ended = "all steps are done" if steps in saved else _early_end(run, saved, patience)
    if ended and steps not in saved:
        seconds_left = 0.0
    return {
        "step": step,
        "steps": steps,
        "finished": ended is not None,
        "ended": ended,
        "loss": last.get("loss"),
        "temperature": last.get("temperature"),
        "learning_rate": last.get("learning_rate"),
        "examples_per_second": speed,
        "seconds_left": seconds_left,
        "goodput": _time_share(goodput, "compute"),
        "input_wait": _time_share(goodput, "input_wait"),
        **newest_times(goodput),
        "last_checkpoint": max(saved) if saved else None,
        "best_checkpoint": best_step(run),
    }


def _numbers(file: Path, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the lines of a log. Raises InputError when a value that the status reads is no number."""
    for line in lines:
        for name, value in line.items():
            if name in _METRICS or "seconds" in name:
                typed(file, name, value, int, float, remedy="remove the line that has it")
    return lines


def seconds_of(run: Path, part: str) -> float:
    """Returns the seconds that a part (crops_jax.runs.log.PARTS) took of all calls of a run, in its first process."""
    return round(sum(line.get(f"{part}_seconds", 0.0) for line in read_goodput(run)), 3)


def _time_share(lines: Sequence[Mapping[str, Any]], part: str) -> float | None:
    """Returns the share of a part (crops_jax.runs.log.PARTS) in the seconds of all lines of goodput.jsonl.

    Each line covers the time since the previous one.
    """
    total = sum(line.get("seconds", 0.0) for line in lines)
    return round(sum(line.get(f"{part}_seconds", 0.0) for line in lines) / total, 4) if total else None


def _early_end(run: Path, saved: Collection[int], patience: int) -> str | None:
    """Returns why the newest checkpoint ends the run before its last step; None if it does not."""
    if not patience or not saved:
        return None
    progress = read_progress(run / FOLDER / str(max(saved)))
    if progress.best is None or not progress.ends_early(patience):
        return None
    return (
        f"early stopping: {progress.evaluations_since_best} evaluations since step {progress.best.step} were not "
        f"better than {progress.best.metric:.4f}"
    )


def _plan(run: Path) -> tuple[int, int, int]:
    """Returns training.steps, the examples of a step and training.early_stopping_evaluations.

    The examples are queries of a dual encoder, or pairs of a cross-encoder.

    training.steps is 0 when the number follows from epochs. The start of the training then writes the number to
    goodput.jsonl.
    """
    file = run / CONFIG
    sections = read_sections(file, remedy=_REMEDY)
    examples = ("pairs", "pairs_per_batch") if "pairs" in sections else ("data", "queries_per_batch")
    steps, batch = (
        typed(file, f"{section}.{name}", sections.get(section, {}).get(name), int, remedy=_REMEDY)
        for section, name in (("training", "steps"), examples)
    )
    return steps, batch, sections.get("training", {}).get("early_stopping_evaluations", 0)


def _median(values: Sequence[float]) -> float | None:
    return round(sorted(values)[len(values) // 2], 2) if values else None
