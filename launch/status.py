"""Prints where a run is, while it trains or after."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from crops_jax import artifacts, program
from crops_jax.errors import InputError
from crops_jax.runs.status import run_status

# Their runs are discriminators' folders.
_DISCRIMINATORS = "launch.train_discriminator"


@dataclass(frozen=True, kw_only=True)
class StatusArguments:
    run: Annotated[str, tyro.conf.Positional]
    """A run of launch.train or launch.train_discriminator, finished or under way."""


def status(arguments: StatusArguments) -> dict[str, Any]:
    """Says where a run is: step, loss, speed, time left, goodput, share of input wait, last checkpoint."""
    run = Path(arguments.run)
    manifest = artifacts.read_manifest(run)
    if manifest["kind"] != "run" and manifest["program"] != _DISCRIMINATORS:
        raise InputError(f"{run} holds {manifest['kind']}, not a run; give the output of launch.train")
    found = run_status(run)
    for name, value in found.items():
        print(f"{name.replace('_', ' '):18} {'-' if value is None else value}", file=sys.stderr)
    return {"run": arguments.run, **found}


if __name__ == "__main__":
    program.run(status, example="python -m launch.status run")
