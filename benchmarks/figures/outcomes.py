"""Takes the figures out of what a program left: a work directory of launch.pipeline, or a file of outcome lines."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures.results import FiguresError

_EVALUATE, _MINE, _TRAIN = "index and evaluate ", "mine ", "train "
_DISCRIMINATOR, _WARM_START = "train the discriminator", "train the warm start"
_DIGITS = 6


def outcome_lines(file: Path) -> dict[str, Any]:
    """The outcomes that a file holds, one JSON object a line; lines that are no JSON objects are left out.

    Raises FiguresError where there is none.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise FiguresError(
            f"{file}: {error.strerror}; give a file that holds the outcome lines of a program"
        ) from error
    outcomes = [outcome for line in lines if isinstance(outcome := _parsed(line), dict)]
    if not outcomes:
        raise FiguresError(f"{file} holds no outcome line; the last line of a program's standard output is one")
    return {"outcomes": [_rounded(outcome) for outcome in outcomes]}


def pipeline_values(work: Path) -> dict[str, Any]:
    """The figures of a finished work directory of launch.pipeline.

    Returns:
      documents, random (Recall of a random order), tests (counts of each test set); systems and unseen_pairs: by
      system, test set and metric the value with its interval and number of queries; differences: the paired
      differences of the report; shared_runs: from an arm without a run of its own to the arm whose run it shares;
      labels: by arm the labels of each source; discriminator: the outcome of its training where one was trained;
      training: by run the steps and the shares of time.

    Raises FiguresError where the directory is not a finished one.
    """
    steps = _read(work / "steps.json")
    arms = [name.removeprefix(_EVALUATE) for name in steps if name.startswith(_EVALUATE)]
    if not arms or "report" not in steps:
        raise FiguresError(f"{work} is not finished; call launch.pipeline with the same arguments again")
    evaluations = {arm: _read(work / arm / "evaluation" / "metrics.json") for arm in arms}
    for other in ("untrained", "warm_start"):
        if (metrics := work / other / "evaluation" / "metrics.json").is_file():
            evaluations[other] = _read(metrics)
    first = evaluations[arms[0]]
    figures = {name: metrics["systems"]["encoder"] for name, metrics in evaluations.items()}
    pairs = {name: metrics["subsets"]["encoder"]["unseen_pairs"] for name, metrics in evaluations.items()}
    values = {
        "documents": first["documents"],
        "random": first["random"],
        "tests": first["tests"],
        "systems": {"bm25": first["systems"]["bm25"], **figures},
        "unseen_pairs": {"bm25": first["subsets"]["bm25"]["unseen_pairs"], **pairs},
        "differences": steps["report"]["outcome"]["differences"],
        "shared_runs": steps["report"]["outcome"].get("shared_runs", {}),
        "labels": {arm: steps[f"{_MINE}{arm}"]["outcome"]["by_source"] for arm in arms},
        "training": _trainings(work, steps, arms),
    }
    if _DISCRIMINATOR in steps:
        values["discriminator"] = steps[_DISCRIMINATOR]["outcome"]
    return _rounded(values)


def _trainings(work: Path, steps: Mapping[str, Any], arms: Sequence[str]) -> dict[str, Any]:
    """The training of each run, by arm; an arm that shares the run of another has none."""
    names = {"warm_start": _WARM_START, **{arm: f"{_TRAIN}{arm}" for arm in arms}}
    return {arm: _training(work / arm / "run", steps[name]["outcome"]) for arm, name in names.items() if name in steps}


def _training(run: Path, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Steps of a run, and the shares of its whole time that passed in steps and in waiting for input."""
    lines = list(_json_lines(run / "goodput.jsonl"))
    total = sum(line["seconds"] for line in lines)
    shares = {name: sum(line[f"{name}_seconds"] for line in lines) / total for name in ("compute", "input_wait")}
    return {"steps": outcome["steps"], "seconds": total, **shares}


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        if isinstance(parsed := _parsed(line), dict):
            yield parsed


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FiguresError(f"{file} cannot be read ({error}); give a work directory of launch.pipeline") from error


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _rounded(value: Any) -> Any:
    """Floats with six significant digits: more than any page shows, and less than what differs by chance."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value
