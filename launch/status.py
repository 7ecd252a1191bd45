"""Prints the state of a run, while it trains or afterwards."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from crops_jax import artifacts, program
from crops_jax.errors import InputError
from crops_jax.program.progress import say
from crops_jax.runs.status import run_status
from crops_jax.storage import StatePath

# A run of this program is the folder of a discriminator.
_DISCRIMINATORS = "launch.train_discriminator"


@dataclass(frozen=True, kw_only=True)
class StatusArguments:
    run: Annotated[StatePath, tyro.conf.Positional]
    """A run of launch.train or launch.train_discriminator, finished or unfinished."""


def status(arguments: StatusArguments) -> dict[str, Any]:
    """Prints the state of a run.

    It consists of the step, the loss, the speed, the remaining time, the goodput (the share of time that training steps
    take), the share of time that steps wait for input, the times of a step over all processes, the last checkpoint, and
    for a finished run why it ended.
    """
    run = Path(arguments.run)
    manifest = artifacts.read_manifest(run)
    if manifest["kind"] != "run" and manifest["program"] != _DISCRIMINATORS:
        raise InputError(f"{run} holds {manifest['kind']}, not a run; give the output of launch.train")
    state = run_status(run)
    for name, value in state.items():
        say(f"{name.replace('_', ' '):26} {'-' if value is None else value}")
    return {"run": arguments.run, **state}


if __name__ == "__main__":
    program.run(
        status,
        example="python -m launch.status run",
        table=False,
    )
