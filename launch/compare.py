"""Trains and evaluates the systems of the comparison on the same data, and writes a table and a page of them."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crops_jax import artifacts, program
from crops_jax.artifacts import in_place
from crops_jax.artifacts.lock import LOCK, exclusive
from crops_jax.config import Config
from crops_jax.devices import processes
from crops_jax.errors import InputError, NamedFailure
from crops_jax.program.chain import STEPS
from crops_jax.program.progress import duration, say
from launch.comparison.arguments import Budget, CompareArguments, budget_of, command_of, identifying, without_paths
from launch.comparison.cells import RUNS, Cell, cells_of
from launch.comparison.configurations import base_configs
from launch.comparison.evidence.example import read_example, update_example
from launch.comparison.phases.running import PHASES
from launch.comparison.presentation.claims import CLAIMS_FILE, further_pairs
from launch.comparison.presentation.notes import notes_of
from launch.comparison.presentation.page import PAGE, PICTURE, write_comparison_page
from launch.comparison.real.configurations import base_config
from launch.comparison.real.running import RealRunner
from launch.comparison.real.settings import RealSet
from launch.comparison.real.shared import make_real_shared
from launch.comparison.real.systems import catalogue_of
from launch.comparison.results.files import RESULTS, stored_results, stored_tuning
from launch.comparison.results.setting import REPORTED, Setting, read_setting, write_setting
from launch.comparison.results.table import (
    DIFFERENCES,
    TABLE,
    Catalogue,
    Comparison,
    compare_results,
    write_table,
)
from launch.comparison.running import CellRunner
from launch.comparison.shared import BM25_NEGATIVES, SHARED, Shared, make_shared
from launch.comparison.systems import System, chosen_systems
from launch.steps.warm_start import WARM_START

_PROGRAM = "launch.compare"


def compare(arguments: CompareArguments) -> dict[str, Any]:
    """Trains and evaluates systems on the same data, with the same steps, tokens and tuning grid, and compares them.

    A cell is one system, architecture and seed. Its result is a small JSON file in TABLE/results or --results, and a
    finished cell is not run again, so that a table can be finished on another day and on another machine. The world or
    the logs, the test sets, the discriminator, the labels and the records are made once for all cells. TABLE/table.csv
    has one row for each cell and metric, TABLE/differences.csv the paired differences to --reference, and
    TABLE/report.html shows both.

    With --real, the data is one of the public data sets, all encoders start from --weights, and the package
    sentence-transformers is trained on the same pairs, with the same tokens, epochs and tuning grid.
    """
    processes.refuse_several(_PROGRAM)
    table = Path(arguments.output)
    results = Path(arguments.results) if arguments.results else table / RESULTS
    if arguments.from_results:
        if foreign := _foreign_file(table):
            raise InputError(f"{table} holds files that are not this comparison's ({foreign}); choose another --output")
        table.mkdir(parents=True, exist_ok=True)
        manifest = artifacts.new_manifest(program=_PROGRAM, kind="comparison", arguments=arguments, inputs={})
        if not (table / artifacts.MANIFEST).exists():
            artifacts.write_manifest(table, manifest)
        found = _present(table, results, arguments, manifest=manifest, failures={})
        finished = sum(len(one.results) for one in found.trained)
        cells = {"finished": finished, "ran": 0, "taken_over": finished}
        return _outcome(table, found, cells=cells, left_out=read_setting(results).left_out)
    budget = budget_of(arguments)
    catalogue = catalogue_of(arguments.real)
    systems = chosen_systems(arguments.systems, among=catalogue.systems)
    _reference(arguments, catalogue)
    real = arguments.real_settings
    configs = _configs(arguments, budget, real)
    table.mkdir(parents=True, exist_ok=True)
    refusal = f"another process works in {table}; wait until it ends, or stop it"
    # The steps inherit the lock: after a kill, no second comparison starts while one of its steps still runs.
    with exclusive(table / LOCK, refusal=refusal, patience_seconds=60, inherited_by_children=True):
        manifest = _claim(table, arguments)
        _remove_temporaries(table, results)
        start = time.monotonic()
        common: dict[str, Any] = {"table": table, "results": results, "arguments": arguments, "budget": budget}
        runner = _runner(systems, real, **common, configs=configs, compilation_cache=table / "compilation_cache")
        shared, seconds = runner.shared, time.monotonic() - start
        left_out = _left_out(systems, shared)
        write_setting(results, _setting(arguments, runner, left_out, seconds))
        cells = [
            cell
            for cell in cells_of(systems, seeds=budget.seeds, among=catalogue.systems)
            if cell.system.labels in shared.records and cell.system.name not in shared.absent
        ]
        ran, failures = _run_cells(runner, cells)
        found = _present(table, results, arguments, manifest=manifest, failures=failures)
    if failures:
        named = "; ".join(f"{name}: {why}" for name, why in failures.items())
        raise NamedFailure(
            f"{len(failures)} of {len(cells)} cells failed ({named}); the others are in {table / TABLE}. Call the same "
            "command again, or name the other systems with --systems"
        )
    ran_or_not = {"finished": len(cells), "ran": ran, "taken_over": len(cells) - ran}
    return _outcome(table, found, cells=ran_or_not, left_out=left_out)


def _reference(arguments: CompareArguments, catalogue: Catalogue) -> str:
    """Returns the system that the others are compared with. Raises InputError if the catalogue has none of its name."""
    reference = arguments.reference or catalogue.reference
    if reference not in catalogue.systems:
        raise InputError(f"--reference {reference!r}: name one of {', '.join(catalogue.systems)}")
    return reference


def _present(
    table: Path,
    folder: Path,
    arguments: CompareArguments,
    *,
    manifest: Mapping[str, Any],
    failures: Mapping[str, str],
) -> Comparison:
    """Writes the tables, the picture and the page of the results in a folder, and returns their comparison."""
    setting = read_setting(folder)
    results = stored_results(folder, among=setting.inputs)
    if not results:
        raise NamedFailure(
            f"no cell is finished: {'; '.join(failures.values())}" if failures else f"no cell is finished in {folder}"
        )
    update_example(folder, table / RUNS, results)
    catalogue = catalogue_of(setting.arguments.get("real", ""))
    comparison = compare_results(
        results,
        reference=_reference(arguments, catalogue),
        samples=arguments.bootstrap_samples,
        pairs=further_pairs(catalogue),
        catalogue=catalogue,
    )
    write_table(table, comparison)
    notes = notes_of(
        comparison,
        setting.arguments,
        tuning=stored_tuning(folder, results),
        left_out=setting.left_out,
        failures=failures,
    )
    write_comparison_page(table, comparison, setting, read_example(folder, results), manifest=manifest, notes=notes)
    return comparison


def _setting(
    arguments: CompareArguments, runner: CellRunner, left_out: Mapping[str, str], shared_seconds: float
) -> Setting:
    labels = {name: runner.shared.labels_report[name] for name in REPORTED if name in runner.shared.labels_report}
    return Setting(
        command=command_of(arguments),
        arguments=without_paths(arguments),
        inputs=runner.common_inputs,
        shared_seconds=round(shared_seconds, 1),
        left_out=left_out,
        labels=labels,
    )


def _configs(arguments: CompareArguments, budget: Budget, real: RealSet | None) -> dict[str, Config]:
    """Returns the base configuration of each architecture. Raises InputError if one does not load."""
    if real is None:
        return base_configs(budget)
    if not Path(arguments.weights).is_dir():
        raise InputError(f"--weights {arguments.weights}: no such folder; name the folder of an encoder")
    return dict.fromkeys(("transformer", "none"), base_config(real, arguments.weights))


def _runner(systems: Sequence[System], real: RealSet | None, **common: Any) -> CellRunner:
    """Makes what all cells share, and returns the runner of the cells. `common` has the other fields of CellRunner."""
    table, arguments, configs = common["table"], common["arguments"], common["configs"]
    cache = common["compilation_cache"]
    if real is None:
        budget = common["budget"]
        shared = make_shared(table, arguments, systems, budget=budget, configs=configs, compilation_cache=cache)
        return CellRunner(shared=shared, **common)
    made = make_real_shared(table, arguments, real, systems, config=configs["transformer"], compilation_cache=cache)
    return RealRunner(shared=made, settings=real, **common)


def _run_cells(runner: CellRunner, cells: Sequence[Cell]) -> tuple[int, dict[str, str]]:
    """Runs the cells that are not finished. Returns how many ran, and the reason for each one that failed."""
    start, ran, failures = time.monotonic(), 0, {}
    for place, cell in enumerate(cells, start=1):
        left = ""
        if ran:
            left = f", about {duration((time.monotonic() - start) / ran * (len(cells) - place + 1))} left"
        say(f"cell {place} of {len(cells)}: {cell.name}{left}")
        try:
            ran += runner.run(cell)
        except NamedFailure as error:
            say(f"cell {cell.name} failed: {error}")
            failures[cell.name] = str(error)
    return ran, failures


def _claim(table: Path, arguments: CompareArguments) -> dict[str, Any]:
    """Writes the manifest of TABLE and returns it. Raises InputError if TABLE has steps of others."""
    manifest = artifacts.new_manifest(
        program=_PROGRAM, kind="comparison", arguments=identifying(arguments), inputs={"logs": arguments.logs or None}
    )
    if (table / artifacts.MANIFEST).exists():
        in_place.check_written_by(table, program=_PROGRAM, kind="comparison", noun="the table")
    elif foreign := _foreign_file(table):
        raise InputError(f"{table} holds files that are not this comparison's ({foreign}); choose another --output")
    if (table / SHARED / STEPS).exists():
        remedy = "give the same ones to go on, or choose another --output"
        in_place.check_same(table, manifest, remedy=remedy, flags={"from_time": "--from"})
    else:
        artifacts.write_manifest(table, manifest)
    return manifest


def _foreign_file(table: Path) -> str | None:
    """Returns the name of a file in a directory that no comparison has written; None if there is none."""
    if not table.exists() or (table / artifacts.MANIFEST).exists():
        return None
    return next((path.name for path in sorted(table.iterdir()) if not path.name.startswith(".")), None)


def _remove_temporaries(table: Path, results: Path) -> None:
    """Removes what killed steps left under temporary names."""
    shared, runs = table / SHARED, table / RUNS
    folders = [table, results, shared, shared / "labels", shared / "records", *runs.glob("*")]
    folders += [*shared.glob(f"{BM25_NEGATIVES}/*"), *shared.glob(f"{PHASES}/*"), *runs.glob(f"*/{PHASES}/*")]
    for folder in [*folders, *shared.glob(f"{WARM_START}/*"), *shared.glob(f"{WARM_START}/*/encoder")]:
        artifacts.remove_temporaries(folder)


def _left_out(systems: Sequence[System], shared: Shared) -> dict[str, str]:
    of_labels = {system.name: shared.left_out.get(system.labels) for system in systems}
    return {name: why for name, why in of_labels.items() if why} | dict(shared.absent)


def _outcome(
    table: Path, found: Comparison, *, cells: Mapping[str, int], left_out: Mapping[str, str]
) -> dict[str, Any]:
    metrics = {
        f"{one.system}-{one.architecture}": {
            label: mean.value
            for metric, label in found.catalogue.metrics.items()
            if (mean := found.means.get((*one.key, metric)))
        }
        for one in found.trained
    }
    verdicts = [difference.verdict for difference in found.differences.values()]
    return {
        "output": str(table),
        "table": str(table / TABLE),
        "differences": str(table / DIFFERENCES),
        "claims": str(table / CLAIMS_FILE),
        "picture": str(table / PICTURE),
        "report": str(table / PAGE),
        "cells": {**cells, "in_the_table": sum(len(one.results) for one in found.trained)},
        "metrics": metrics,
        "verdicts": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        "left_out": dict(left_out),
    }


if __name__ == "__main__":
    program.run(
        compare,
        example="python -m launch.compare --output table --systems bm25,nce,fs_lr,crops --seeds 3",
        uses_devices=True,
        device=True,
    )
