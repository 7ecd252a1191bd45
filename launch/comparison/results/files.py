"""The files of results: what a cell measured, and the learning rate that the dev split chose.

RESULTS/CELL.json         the measurements of a cell, and the inputs that they were made from
RESULTS/PAIR.tuning.json  the dev recall of each learning rate of a system and architecture

The files are small enough to be committed. All but the values of single queries is readable. A file appears whole.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crops_jax.artifacts import write_text
from crops_jax.artifacts.json_fields import read_object, typed
from crops_jax.errors import InputError
from launch.comparison.cells import Cell
from launch.comparison.results.conditions import Conditions
from launch.comparison.results.packed_values import pack, unpack

RESULTS = "results"
FORMAT = 2
_CELL_FILE = re.compile(r"[^.]+-[a-z]+-\d+\.json")
_REMEDY = "remove the file, so that the cell is run again"
_DIGITS = 8
"""The decimal places of a mean in a file."""
_KINDS = {"system": str, "architecture": str, "seed": int, "inputs": dict, "figures": dict}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One metric of a cell."""

    mean: float
    """The mean over queries."""
    queries: int
    """The number of queries."""
    fingerprint: str
    """The fingerprint of the queries in their order, so that only values of the same queries are paired."""
    values: Sequence[float] = ()
    """One value for each query, as float32 numbers; empty for a metric of which only the mean is kept."""


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
    conditions: Conditions
    metrics: Mapping[str, Measured]

    @property
    def name(self) -> str:
        """The name of the cell."""
        return f"{self.pair}-{self.seed}"

    @property
    def pair(self) -> str:
        """The name of the system with its architecture, as that of a cell."""
        return f"{self.system}-{self.architecture}"


def measured(values: Iterable[float], *, fingerprint: str, with_values: bool = True) -> Measured:
    """Returns a metric with its mean; its values are rounded to float32, or left out."""
    rounded = np.asarray(list(values), np.float32).astype(np.float64)
    kept = tuple(rounded.tolist()) if with_values else ()
    mean = round(float(rounded.mean()), _DIGITS)
    return Measured(mean=mean, queries=len(rounded), fingerprint=fingerprint, values=kept)


def result_file(results: Path, cell: Cell) -> Path:
    """Returns the file of the result of a cell."""
    return results / f"{cell.name}.json"


def write_result(file: Path, result: Result) -> None:
    """Writes the result of a cell; the file appears whole."""
    fields = {"format": FORMAT, **dataclasses.asdict(result)}
    for field, one in fields["metrics"].items():
        packed = {"values": pack(one["values"])} if one["values"] else {}
        fields["metrics"][field] = {name: one[name] for name in ("mean", "queries", "fingerprint")} | packed
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(fields, sort_keys=True, indent=1, allow_nan=False) + "\n")


def read_result(file: Path) -> Result:
    """Returns the result in a file. Raises InputError when the file is damaged or has another format."""
    stored = _read(file)
    fields = {name: typed(file, name, stored.get(name), kind, remedy=_REMEDY) for name, kind in _KINDS.items()}
    for name, value in fields["figures"].items():
        typed(file, f"figures.{name}", value, int, float, remedy=_REMEDY)
    conditions = typed(file, "conditions", stored.get("conditions"), dict, remedy=_REMEDY)
    metrics = typed(file, "metrics", stored.get("metrics"), dict, remedy=_REMEDY)
    return Result(
        **fields,
        conditions=_conditions(file, conditions),
        metrics={name: _measured(file, f"metrics.{name}", one) for name, one in metrics.items()},
    )


def tuning_file(results: Path, cell: Cell | Result) -> Path:
    """Returns the file of the learning rates that were tried for the system and architecture of a cell."""
    return results / f"{cell.pair}.tuning.json"


def write_tuning(file: Path, *, inputs: Mapping[str, Any], found: Mapping[str, float | None]) -> None:
    """Writes the dev recall of each learning rate factor; the file appears whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fields = {"format": FORMAT, "inputs": inputs, "found": found}
    write_text(file, json.dumps(fields, sort_keys=True, indent=1, allow_nan=False) + "\n")


def read_tuning(file: Path) -> dict[str, float]:
    """Returns the dev recall of each learning rate factor. Raises InputError when the file is damaged."""
    found = typed(file, "found", _read(file).get("found"), dict, remedy=_REMEDY)
    return {name: typed(file, f"found.{name}", value, int, float, remedy=_REMEDY) for name, value in found.items()}


def stored_tuning(results: Path, among: Sequence[Result]) -> dict[str, dict[float, float]]:
    """Returns the dev recall of each learning rate factor, of those systems whose learning rate was tuned.

    Args:
      results: the folder of results.
      among: results of the systems.

    Returns:
      The name of a system with its architecture, such as nce-transformer -> factor -> dev recall.
    """
    files = {one.pair: tuning_file(results, one) for one in among}
    return {
        pair: {float(factor): recall for factor, recall in read_tuning(file).items()}
        for pair, file in files.items()
        if file.is_file()
    }


def is_finished(file: Path, inputs: Mapping[str, Any]) -> bool:
    """Returns whether a file holds a result of the present format that was made from these inputs."""
    if not file.exists():
        return False
    stored = read_object(file, remedy=_REMEDY)
    return stored.get("format") == FORMAT and stored.get("inputs") == inputs


def stored_results(results: Path, *, among: Mapping[str, Any]) -> list[Result]:
    """Returns the results of a folder whose inputs agree with `among`, in the order of their file names."""
    files = sorted(file for file in results.glob("*.json") if _CELL_FILE.fullmatch(file.name))
    found = [read_result(file) for file in files]
    return [result for result in found if all(result.inputs.get(name) == value for name, value in among.items())]


def _read(file: Path) -> dict[str, Any]:
    stored = read_object(file, remedy=_REMEDY)
    if stored.get("format") != FORMAT:
        raise InputError(f"{file}: format must be {FORMAT}, found {stored.get('format')}; {_REMEDY}")
    return stored


def _measured(file: Path, name: str, stored: Any) -> Measured:
    typed(file, name, stored, dict, remedy=_REMEDY)
    mean = typed(file, f"{name}.mean", stored.get("mean"), int, float, remedy=_REMEDY)
    queries = typed(file, f"{name}.queries", stored.get("queries"), int, remedy=_REMEDY)
    fingerprint = typed(file, f"{name}.fingerprint", stored.get("fingerprint"), str, remedy=_REMEDY)
    if "values" not in stored:
        return Measured(mean=mean, queries=queries, fingerprint=fingerprint)
    try:
        values = unpack(typed(file, f"{name}.values", stored["values"], str, remedy=_REMEDY))
    except ValueError as error:
        raise InputError(f"{file}: {name}.values: {error}; {_REMEDY}") from error
    found = measured(values, fingerprint=fingerprint)
    if found.queries != queries or abs(found.mean - mean) > 10**-_DIGITS:
        raise InputError(
            f"{file}: {name} has the mean {mean} of {queries} queries, but its values have the mean {found.mean} of "
            f"{found.queries}; {_REMEDY}"
        )
    return found


def _conditions(file: Path, stored: Mapping[str, Any]) -> Conditions:
    kinds: dict[str, tuple[type, ...]] = {"seconds": (int, float), "packages": (dict,), "processor": (str,)}
    kinds |= {"cores": (int,), "fingerprints": (dict,)}
    return Conditions(
        **{
            name: typed(file, f"conditions.{name}", stored.get(name), *kind, remedy=_REMEDY)
            for name, kind in kinds.items()
        }
    )
