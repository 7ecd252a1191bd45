"""A cell of the comparison is one system, architecture and seed. Its run, which training resumes in place, is in
TABLE/runs/CELL-RATE, and its result is a small file (see launch.comparison.results.files).
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crops_jax.artifacts import write_text
from crops_jax.artifacts.json_fields import read_object
from launch.comparison.systems import SYSTEMS, Architecture, System

RUNS = "runs"
_INPUTS = "inputs.json"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One system, architecture and seed."""

    system: System
    architecture: Architecture
    seed: int
    systems: Mapping[str, System] = field(default_factory=lambda: SYSTEMS, repr=False, compare=False)
    """The systems by name, among which are those whose runs another one evaluates."""

    @property
    def pair(self) -> str:
        """The name of the system and the architecture."""
        return f"{self.system.name}-{self.architecture}"

    @property
    def name(self) -> str:
        return f"{self.pair}-{self.seed}"

    @property
    def trained(self) -> "Cell":
        """The cell whose run is evaluated: this one, unless its system evaluates the runs of another."""
        return dataclasses.replace(self, system=self.systems[self.system.runs_of]) if self.system.runs_of else self

    @property
    def retriever(self) -> "Cell | None":
        """The cell whose run retrieves the documents that this one reranks; None if its own run retrieves them."""
        if not self.system.reranks:
            return None
        return dataclasses.replace(self, system=self.systems[self.system.reranks])


def cells_of(systems: Sequence[System], *, seeds: int | None, among: Mapping[str, System] = SYSTEMS) -> list[Cell]:
    """Returns the cells, seed by seed, so that a table that is not finished has every system.

    A system that does not learn and whose tower is "none" has one cell. With None for `seeds`, each system has its own
    number of them. `among` has all systems of the comparison.
    """
    return [
        Cell(system=system, architecture=architecture, seed=seed, systems=among)
        for seed in range(seeds or max((system.seeds for system in systems), default=0))
        for system in systems
        for architecture in system.architectures
        if seed < (1 if architecture == "none" else seeds or system.seeds)
    ]


def claim_run(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Makes the folder of a run. If the folder holds a run of other inputs, that run is removed first."""
    file = folder / _INPUTS
    if folder.exists() and (not file.exists() or read_object(file, remedy="remove the folder") != inputs):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(inputs, indent=2, sort_keys=True) + "\n")


def release_run(folder: Path) -> None:
    """Lets the next `claim_run` remove the folder of a run, whatever its inputs are."""
    (folder / _INPUTS).unlink(missing_ok=True)
