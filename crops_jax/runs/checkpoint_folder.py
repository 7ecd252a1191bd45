"""The folder RUN/checkpoints as programs read it that do not train: its steps, and the part that is not arrays.

JAX and Orbax are not loaded with this module.
"""

from pathlib import Path
from typing import Any, NamedTuple

from crops_jax.errors import InputError, one_line

FOLDER = "checkpoints"


class Best(NamedTuple):
    """The best evaluated step up to a checkpoint, and its metric, of which higher values are better."""

    step: int
    metric: float


class Progress(NamedTuple):
    """The part of a checkpoint that is not arrays.

    best: the best evaluated step; None before the first evaluation.
    accumulated: the counters and sums since the last line of metrics.jsonl.
    evaluations_since_best: the number of evaluations after the best one.
    """

    best: Best | None = None
    accumulated: dict[str, int | float] = {}  # noqa: RUF012 - a NamedTuple's default is never changed
    evaluations_since_best: int = 0

    def ends_early(self, early_stopping_evaluations: int) -> bool:
        """Returns whether the run ends here by training.early_stopping_evaluations, for which 0 means never."""
        return 0 < early_stopping_evaluations <= self.evaluations_since_best


def best_step(run: Path | str) -> int | None:
    """Returns the step of a run's best checkpoint by the dev metric, or the last step when nothing was evaluated."""
    folder = Path(run).absolute() / FOLDER
    steps = saved_steps(folder)
    if not steps:
        return None
    best = read_progress(folder / str(max(steps))).best
    return max(steps) if best is None else best.step


def saved_steps(folder: Path) -> set[int]:
    """Returns the steps of the whole checkpoints in the folder RUN/checkpoints."""
    if not folder.is_dir():
        return set()
    return {int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdecimal()}


def read_progress(checkpoint: Path) -> Progress:
    """Reads the part of a checkpoint that is not arrays. Raises InputError when it cannot be read."""
    try:
        return as_progress(read_json(checkpoint))
    except (KeyError, TypeError) as error:
        raise unreadable(checkpoint, error) from error


def as_progress(stored: dict[str, Any]) -> Progress:
    """Returns the progress in what `read_json` returns. Raises KeyError or TypeError when it is incomplete."""
    best = Best(**stored["best"]) if stored["best"] else None
    return Progress(best, stored["accumulated"], stored["evaluations_since_best"])


def read_json(checkpoint: Path) -> dict[str, Any]:
    """Reads the file of a checkpoint that is not arrays. Raises InputError when it cannot be read."""
    import orbax.checkpoint as ocp  # here, because it loads JAX

    # The handler is used directly: a Checkpointer waits for all processes, and a single process must be able to read.
    try:
        return ocp.JsonCheckpointHandler().restore(checkpoint / "progress")  # type: ignore[arg-type]
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise unreadable(checkpoint, error) from error


def required_object(checkpoint: Path, stored: dict[str, Any], field: str) -> dict[str, Any]:
    """Returns a JSON object that every checkpoint holds. Raises InputError when it is missing."""
    if not isinstance(stored.get(field), dict):
        raise unreadable(checkpoint, ValueError(f"it has no {field}"))
    return stored[field]


def unreadable(checkpoint: Path, error: Exception) -> InputError:
    """Returns the error that names a damaged checkpoint, its cause, and what to do."""
    return InputError(
        f"{checkpoint}: the checkpoint cannot be read ({one_line(error)}); remove that folder to go on from the one "
        "before it"
    )
