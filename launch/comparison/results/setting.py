"""The file that says what all cells of a folder of results have in common.

RESULTS/comparison.json  the command, the data, the systems that the logs do not allow, and the sources of the labels

With it, the table and the page can be made from the results alone.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from crops_jax.artifacts import write_text
from crops_jax.artifacts.json_fields import read_object, typed
from crops_jax.errors import InputError
from launch.comparison.results.files import FORMAT

_FILE = "comparison.json"
REPORTED = ("perspectives", "precision", "precision_by_truth")
"""The parts of the outcome of data.report that are kept."""
_REMEDY = "call launch.compare without --from-results, which writes it"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The facts that all cells have in common."""

    command: str
    """The command line that makes the table, with TABLE and LOGS for its folders."""
    arguments: Mapping[str, Any]
    """The arguments that the cells share, with defaults filled in, without paths."""
    inputs: Mapping[str, Any]
    """The inputs that are the same for every cell; results of others do not belong to the table."""
    shared_seconds: float
    """The wall-clock seconds of the shared steps, in the call that made them."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """The systems that the logs do not allow, with the reasons."""
    labels: Mapping[str, Any] = field(default_factory=dict)
    """The outcome of data.report for the labels of all perspectives: "perspectives", "precision" where there are
    judgements to measure it, and "precision_by_truth" for a generated world. It is empty until these labels are made,
    and where labels are not mined from a log."""


def write_setting(results: Path, setting: Setting) -> None:
    """Writes RESULTS/comparison.json; what an earlier call with the same inputs had found is kept."""
    file = results / _FILE
    fields = asdict(setting)
    if file.exists() and (before := read_object(file, remedy=_REMEDY)).get("inputs") == setting.inputs:
        fields["left_out"] = {**before.get("left_out", {}), **setting.left_out}
        fields["labels"] = fields["labels"] or before.get("labels", {})
        fields["shared_seconds"] = max(fields["shared_seconds"], before.get("shared_seconds", 0.0))
    results.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"format": FORMAT, **fields}, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_setting(results: Path) -> Setting:
    """Returns the setting of a folder of results. Raises InputError when its file is missing or damaged."""
    file = results / _FILE
    stored = read_object(file, remedy=_REMEDY)
    if stored.get("format") != FORMAT:
        raise InputError(f"{file}: format must be {FORMAT}, found {stored.get('format')}; {_REMEDY}")
    kinds: dict[str, tuple[type, ...]] = dict.fromkeys(("arguments", "inputs", "left_out", "labels"), (dict,))
    kinds |= {"command": (str,), "shared_seconds": (int, float)}
    return Setting(**{name: typed(file, name, stored.get(name), *kind, remedy=_REMEDY) for name, kind in kinds.items()})
