"""The status of a run, read from its folder while it trains or afterwards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crops_jax.artifacts.json_fields import typed
from crops_jax.config.stored import CONFIG, read_sections
from crops_jax.runs import checkpoints
from crops_jax.runs.log import read_goodput, read_metrics

# Lines of metrics.jsonl that the present speed is read from; their median, so that one slow stretch decides nothing.
_RECENT_LINES = 5
_REMEDY = "check that it is the configuration of a run"


def run_status(run: Path) -> dict[str, Any]:
    """Step, loss, speed, time left and checkpoints of a run; None for what is not known yet.

    step and loss are those of the last whole line of metrics.jsonl. seconds_left is what the remaining steps take at
    the median speed of the last lines. goodput is the share of all time, restarts included, that steps took, and
    input_wait that in which they waited for batches; of several processes those of the first.
    """
    lines = read_metrics(run)
    configured, batch = _plan(run)
    goodput = read_goodput(run)
    steps = configured or next((line["steps"] for line in reversed(goodput) if "steps" in line), None)
    last = lines[-1] if lines else {}
    speed = _median([line["examples_per_second"] for line in lines[-_RECENT_LINES:] if "examples_per_second" in line])
    step = int(last.get("step", 0))
    left = None
    if steps is not None and speed:
        left = round((steps - step) * batch / speed, 1)
    saved = checkpoints.saved_steps(run / checkpoints.FOLDER)
    return {
        "step": step,
        "steps": steps,
        "finished": steps is not None and steps in saved,
        "loss": last.get("loss"),
        "temperature": last.get("temperature"),
        "learning_rate": last.get("learning_rate"),
        "examples_per_second": speed,
        "seconds_left": left,
        "goodput": _time_share(goodput, "compute"),
        "input_wait": _time_share(goodput, "input_wait"),
        "last_checkpoint": max(saved) if saved else None,
        "best_checkpoint": checkpoints.best_step(run),
    }


def _time_share(lines: Sequence[Mapping[str, Any]], part: str) -> float | None:
    """Share of a part (crops_jax.runs.log.PARTS) in all seconds of goodput.jsonl, whose lines each cover the time since
    the one before."""
    total = sum(line.get("seconds", 0.0) for line in lines)
    return round(sum(line.get(f"{part}_seconds", 0.0) for line in lines) / total, 4) if total else None


def _plan(run: Path) -> tuple[int, int]:
    """Returns training.steps and the examples of a step: queries of a dual encoder, or pairs of a cross-encoder.

    training.steps is 0 where the number follows from epochs; training then writes it to goodput.jsonl when it starts.
    """
    file = run / CONFIG
    sections = read_sections(file, remedy=_REMEDY)
    examples = ("pairs", "pairs_per_batch") if "pairs" in sections else ("data", "queries_per_batch")
    steps, batch = (
        typed(file, f"{section}.{name}", sections.get(section, {}).get(name), int, remedy=_REMEDY)
        for section, name in (("training", "steps"), examples)
    )
    return steps, batch


def _median(values: Sequence[float]) -> float | None:
    return round(sorted(values)[len(values) // 2], 2) if values else None
