"""Where a run is, read from its folder while it trains or after."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crops_jax.errors import InputError
from crops_jax.runs import checkpoints
from crops_jax.runs.log import read_metrics

# Lines of metrics.jsonl that the present speed is read from; their median, so that one slow stretch decides nothing.
_RECENT_LINES = 5


def run_status(run: Path) -> dict[str, Any]:
    """Step, loss, speed, time left and checkpoints of a run; None for what is not known yet.

    step and loss are those of the last whole line of metrics.jsonl. seconds_left is what the remaining steps take at
    the median speed of the last lines. goodput is the share of all time, restarts included, that steps took, and
    input_wait that in which they waited for batches; of several processes those of the first.
    """
    lines = read_metrics(run)
    config = _read_config(run)
    steps = total_steps(run, config)
    last = lines[-1] if lines else {}
    speed = _median([line["examples_per_second"] for line in lines[-_RECENT_LINES:] if "examples_per_second" in line])
    step = int(last.get("step", 0))
    left = None
    if steps is not None and speed:
        left = round((steps - step) * _batch(config) / speed, 1)
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
        "goodput": time_share(run, "compute"),
        "input_wait": time_share(run, "input_wait"),
        "last_checkpoint": max(saved) if saved else None,
        "best_checkpoint": checkpoints.best_step(run),
    }


def total_steps(run: Path, config: Mapping[str, Any]) -> int | None:
    """Steps of a whole run: training.steps, else what training said when it started; None before that."""
    if config["training"]["steps"]:
        return config["training"]["steps"]
    return next((line["steps"] for line in reversed(_goodput_lines(run)) if "steps" in line), None)


def time_share(run: Path, part: str) -> float | None:
    """Share of a part (crops_jax.runs.log.PARTS) in all seconds of goodput.jsonl, whose lines each cover the time since
    the one before."""
    lines = _goodput_lines(run)
    total = sum(line.get("seconds", 0.0) for line in lines)
    return round(sum(line.get(f"{part}_seconds", 0.0) for line in lines) / total, 4) if total else None


def _goodput_lines(run: Path) -> list[dict[str, Any]]:
    file = run / "goodput.jsonl"
    lines = []
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):  # torn, while it is written
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def _read_config(run: Path) -> dict[str, Any]:
    file = run / "config.json"
    try:
        config = json.loads(file.read_text())
        _ = config["training"]["steps"], config["training"]["epochs"], _batch(config)
        return config
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{file}: not the configuration of a run ({error!r}); check the path") from error


def _batch(config: Mapping[str, Any]) -> int:
    """Examples of a step: queries of a dual encoder, or pairs of a cross-encoder."""
    return config["pairs"]["pairs_per_batch"] if "pairs" in config else config["data"]["queries_per_batch"]


def _median(values: Sequence[float]) -> float | None:
    return round(sorted(values)[len(values) // 2], 2) if values else None
