"""A cell of the comparison is one system, architecture and seed. Its result is a small JSON file.

TABLE/results/CELL.json         what the cell measured, and the inputs that it was made from
TABLE/results/PAIR.tuning.json  the learning rate that the dev split chose for a system and architecture
TABLE/runs/CELL-RATE/           the run, which training resumes in place

A result appears whole. A cell whose result was made from equal inputs is not run again, even without its run.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crops_jax.artifacts import write_text
from crops_jax.artifacts.json_fields import read_object, typed
from crops_jax.errors import InputError
from launch.comparison.systems import SYSTEMS, Architecture, System

RESULTS = "results"
RUNS = "runs"
_FORMAT = 1
_TUNING = ".tuning.json"
_INPUTS = "inputs.json"
_REMEDY = "remove the file, so that the cell is run again"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One system, architecture and seed."""

    system: System
    architecture: Architecture
    seed: int

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
        return dataclasses.replace(self, system=SYSTEMS[self.system.runs_of]) if self.system.runs_of else self


def cells_of(systems: Sequence[System], *, seeds: int) -> list[Cell]:
    """Returns the cells, seed by seed, so that a table that is not finished has every system.

    A system that does not learn and whose tower is "none" has one cell.
    """
    return [
        Cell(system=system, architecture=architecture, seed=seed)
        for seed in range(seeds)
        for system in systems
        for architecture in system.architectures
        if seed == 0 or architecture != "none"
    ]


@dataclass(frozen=True, kw_only=True)
class Result:
    """The measurements of a cell."""

    system: str
    architecture: str
    seed: int
    inputs: Mapping[str, Any]
    """The fingerprints and settings that decide the values."""
    figures: Mapping[str, float]
    """Numbers of the cell itself, such as the seconds of a training step."""
    queries: Mapping[str, str]
    """Metric -> the fingerprint of its queries in order, so that only values of the same queries are paired."""
    values: Mapping[str, Sequence[float]]
    """Metric -> one value for each of its queries."""


def result_file(table: Path, cell: Cell) -> Path:
    """Returns the file of the result of a cell."""
    return table / RESULTS / f"{cell.name}.json"


def write_result(file: Path, result: Result) -> None:
    """Writes the result of a cell; the file appears whole."""
    write_text(file, json.dumps({"format": _FORMAT, **asdict(result)}, sort_keys=True, allow_nan=False) + "\n")


def read_result(file: Path) -> Result:
    """Returns the result in a file. Raises InputError when the file is damaged."""
    stored = read_object(file, remedy=_REMEDY)
    kinds = {"system": str, "architecture": str, "seed": int}
    kinds |= dict.fromkeys(("inputs", "figures", "queries", "values"), dict)
    if stored.get("format") != _FORMAT:
        raise InputError(f"{file}: format must be {_FORMAT}, found {stored.get('format')}; {_REMEDY}")
    result = Result(**{name: typed(file, name, stored.get(name), kind, remedy=_REMEDY) for name, kind in kinds.items()})
    for metric, values in result.values.items():
        typed(file, f"values.{metric}", values, list, remedy=_REMEDY)
        for value in values:
            typed(file, f"values.{metric}", value, int, float, remedy=_REMEDY)
        typed(file, f"queries.{metric}", result.queries.get(metric), str, remedy=_REMEDY)
    for name, value in result.figures.items():
        typed(file, f"figures.{name}", value, int, float, remedy=_REMEDY)
    return result


def tuning_file(table: Path, cell: Cell) -> Path:
    """Returns the file of the learning rates that were tried for the system and architecture of a cell."""
    return table / RESULTS / f"{cell.pair}{_TUNING}"


def write_tuning(file: Path, *, inputs: Mapping[str, Any], found: Mapping[str, float | None]) -> None:
    """Writes the dev recall of each learning rate factor; the file appears whole."""
    write_text(file, json.dumps({"format": _FORMAT, "inputs": inputs, "found": found}, sort_keys=True) + "\n")


def is_finished(file: Path, inputs: Mapping[str, Any]) -> bool:
    """Returns whether a file holds a result that was made from these inputs."""
    return file.exists() and read_object(file, remedy=_REMEDY).get("inputs") == inputs


def claim_run(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Makes the folder of a run. If the folder holds a run of other inputs, that run is removed first."""
    file = folder / _INPUTS
    if folder.exists() and (not file.exists() or read_object(file, remedy="remove the folder") != inputs):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(inputs, indent=2, sort_keys=True) + "\n")


def stored_results(table: Path, *, among: Mapping[str, Any]) -> list[Result]:
    """Returns the results in TABLE whose inputs agree with `among`, in the order of their file names."""
    files = sorted(file for file in (table / RESULTS).glob("*.json") if not file.name.endswith(_TUNING))
    results = [read_result(file) for file in files]
    return [result for result in results if all(result.inputs.get(name) == value for name, value in among.items())]
