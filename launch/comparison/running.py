"""Runs one cell: tune, train, evaluate, and write its result."""

import hashlib
import itertools
import json
import shutil
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crops_jax import __version__, artifacts
from crops_jax.artifacts.json_fields import read_object
from crops_jax.config import Config
from crops_jax.config.module import as_module, changes_of_defaults
from crops_jax.errors import InputError
from crops_jax.program.chain import Chain, Step
from crops_jax.runs.log import read_goodput
from launch.comparison.arguments import Budget, CompareArguments, without_paths
from launch.comparison.cells import RUNS, Cell, claim_run
from launch.comparison.configurations import cell_config
from launch.comparison.evidence.anchors import anchors_per_query
from launch.comparison.evidence.example import is_shown
from launch.comparison.evidence.lists import keep_lists
from launch.comparison.measures import as_metrics, values_of
from launch.comparison.phases.plan import staleness
from launch.comparison.phases.running import (
    PhaseInputs,
    PlannedPhase,
    planned_phases,
    remove_phases,
    settings_of,
    train_phases,
)
from launch.comparison.phases.steps import BM25_FLAGS
from launch.comparison.results.conditions import conditions_here, is_superseded
from launch.comparison.results.files import (
    Measured,
    Result,
    is_finished,
    read_result,
    read_tuning,
    result_file,
    tuning_file,
    write_result,
    write_tuning,
)
from launch.comparison.shared import SHARED, Shared
from launch.comparison.systems import tower_of
from launch.steps.arguments import words_of
from launch.steps.programs import training_step

_DEV = "dev_recall_at_10"
_IN_CONFIG = {"fast", "steps", "learning_rate_factors", "transformer", "hashed"}
"""The arguments that the configuration of a cell holds already."""
_FEWEST_SAMPLES = 100
"""The bootstrap samples of the evaluations, whose own intervals are not used."""


@dataclass(frozen=True, kw_only=True)
class CellRunner:
    """All that the cells of a comparison have in common."""

    table: Path
    results: Path
    """The folder of the results, which finished cells are taken from."""
    arguments: CompareArguments
    budget: Budget
    configs: Mapping[str, Config]
    """The base configuration of each architecture."""
    shared: Shared
    compilation_cache: Path

    @property
    def _steps_of_cell(self) -> int:
        """The number of steps that train and measure a cell."""
        return 2

    @property
    def common_inputs(self) -> dict[str, Any]:
        """The inputs that are the same for every cell: the logs, and the settings of all that is made from them.

        What is made from the logs counts by its settings and not by its bytes, so that a table can be finished on
        another machine: a warm start, and with it the labels, differ in the last digits between processors.
        """
        shared = {name: value for name, value in without_paths(self.arguments).items() if name not in _IN_CONFIG}
        # Cells of another recipe do not belong into one table with those of the present one.
        bases = {
            architecture: changes_of_defaults(config.replace(encoder={"weights": ""}))
            for architecture, config in self.configs.items()
        }
        settings = hashlib.sha256(json.dumps([shared, bases], sort_keys=True).encode()).hexdigest()
        return {"version": __version__, "logs": artifacts.fingerprint(self.shared.logs), "settings": settings}

    def run(self, cell: Cell) -> bool:
        """Runs a cell unless its result was made from the present inputs. Returns whether it ran."""
        start = time.monotonic()
        factor = self._factor(cell.trained)
        measured = {"ranked_by": cell.system.ranked_by, "flags_of_system": list(cell.system.evaluate_flags)}
        inputs = self.common_inputs | measured | self._run_inputs(cell.trained, factor)
        if cell.retriever:
            inputs |= {"retriever": self._run_inputs(cell.retriever, self._factor(cell.retriever))}
        file, fingerprints = result_file(self.results, cell), self._fingerprints(cell.trained)
        here = conditions_here(0.0, fingerprints=fingerprints)
        if is_finished(file, inputs) and not is_superseded(read_result(file).conditions, here):
            return False
        folder, chain, trained = self._train(cell.trained, factor)
        evaluation = folder / "evaluation"
        retriever = self._train(cell.retriever, self._factor(cell.retriever))[0] / "run" if cell.retriever else None
        self._evaluate(cell, chain, folder / "run", evaluation, retriever=retriever)
        result = Result(
            system=cell.system.name,
            architecture=cell.architecture,
            seed=cell.seed,
            inputs=inputs,
            figures=self._figures(cell, folder, trained, factor) | _query_seconds(cell, evaluation),
            conditions=conditions_here(time.monotonic() - start, fingerprints=fingerprints),
            metrics=self._metrics(evaluation, ranked_by=cell.system.ranked_by),
        )
        write_result(file, result)
        if is_shown(cell.system.name, cell.architecture, cell.seed):
            keep_lists(evaluation, folder, inputs)
        if self.arguments.keep == "runs":
            shutil.rmtree(evaluation)
            for tried in self.budget.learning_rate_factors:
                remove_phases(self._folder(cell.trained, tried))
        return True

    def _figures(self, cell: Cell, folder: Path, trained: Mapping[str, Any], factor: float) -> dict[str, float]:
        """Returns the numbers of the last run and the age of its negatives; none for a cell without a run."""
        if not cell.system.trained or cell.trained is not cell:
            return {}
        config = self._config(cell, factor)
        anchors = anchors_per_query(folder / "run", config.data.queries_per_batch)
        ages = staleness(config.negatives, steps=self.budget.steps)
        return _training_figures(folder, trained, factor) | anchors | ages

    def _factor(self, cell: Cell) -> float:
        """Returns the learning rate factor with the best dev recall at seed 0; the first of equal ones."""
        factors = self.budget.learning_rate_factors
        if len(factors) == 1 or not cell.system.trained:
            return factors[0] if cell.system.trained else 1.0
        first = Cell(system=cell.system, architecture=cell.architecture, seed=0)
        inputs = {str(factor): self._run_inputs(first, factor) for factor in factors}
        file = tuning_file(self.results, cell)
        if not is_finished(file, inputs):
            found = {str(factor): self._train(first, factor)[2].get(_DEV) for factor in factors}
            if None in found.values():
                raise InputError(
                    f"{cell.pair}: the records have no dev query with a positive, so no learning rate can be chosen; "
                    "give one --learning-rate-factors, or a larger --dev-fraction in --records-flags"
                )
            write_tuning(file, inputs=inputs, found=found)
        found = read_tuning(file)
        return max(factors, key=lambda factor: found[str(factor)])

    def _run_inputs(self, cell: Cell, factor: float) -> dict[str, Any]:
        """Returns what decides the parameters of a run beside the common inputs."""
        start = ""
        if self._initial_run(cell):
            start = hashlib.sha256(changes_of_defaults(self.configs[cell.architecture]).encode()).hexdigest()
        decided = self._settings(cell, factor)
        return {
            "initial_run": start,
            "labels": [*cell.system.labels.flags, *(BM25_FLAGS if cell.system.lexical_negatives else ())],
            "config": hashlib.sha256(decided.encode()).hexdigest(),
        }

    def _settings(self, cell: Cell, factor: float) -> str:
        """Returns the configuration of a cell, or that of its phases, as text without paths."""
        if cell.system.phases:
            return settings_of(self._phases(cell, factor))
        return changes_of_defaults(self._config(cell, factor))

    def _fingerprints(self, cell: Cell) -> dict[str, str]:
        """Returns the fingerprint of the records, which changes when their bytes do."""
        return {"records": artifacts.fingerprint(self.shared.records_of(cell.system))}

    def _initial_run(self, cell: Cell) -> Path | None:
        """Returns the run that a cell starts from, if there is one."""
        return self.shared.initial_runs.get(tower_of(cell.architecture))

    def _config(self, cell: Cell, factor: float) -> Config:
        return cell_config(cell, self.configs[cell.architecture], budget=self.budget, factor=factor)

    def _module(self, cell: Cell, factor: float) -> str:
        return as_module(self._config(cell, factor), heading=f"The configuration of {cell.name}.")

    def _folder(self, cell: Cell, factor: float) -> Path:
        return self.table / RUNS / f"{cell.name}-{factor:g}"

    def _claimed(self, cell: Cell, factor: float) -> dict[str, Any]:
        """Returns the inputs of which the folder of a run is made."""
        return self.common_inputs | self._run_inputs(cell, factor) | self._fingerprints(cell)

    def _train(self, cell: Cell, factor: float) -> tuple[Path, Chain, dict[str, Any]]:
        """Trains the encoder of a cell in its folder, which it returns with the outcome of launch.train."""
        folder, start = self._folder(cell, factor), self._initial_run(cell)
        claim_run(folder, self._claimed(cell, factor))
        if cell.system.phases:
            planned, inputs = self._phases(cell, factor), self._phase_inputs(cell)
            return folder, *train_phases(cell, planned, inputs, folder=folder, start=start)
        artifacts.write_text(folder / "config.py", self._module(cell, factor))
        chain = Chain(folder, total=self._steps_of_cell, compilation_cache=self.compilation_cache)
        records = self.shared.records_of(cell.system)
        step = training_step(f"train {cell.name}", folder, records, folder / "run", start=start)
        return folder, chain, chain.run(step)

    def _evaluate(
        self, cell: Cell, chain: Chain, run: Path, evaluation: Path, *, retriever: Path | None = None
    ) -> None:
        """Evaluates the run of a cell into the directory `evaluation`.

        retriever: the run whose documents the run of the cell reranks; None if it retrieves them itself.
        """
        chain.run(self._evaluation(cell, run, evaluation, retriever=retriever))

    def _metrics(self, evaluation: Path, *, ranked_by: str) -> dict[str, Measured]:
        """Returns the metrics of an evaluation."""
        return as_metrics(values_of(evaluation, ranked_by=ranked_by))

    def _evaluation_flags(self, cell: Cell, run: Path) -> tuple[str, ...]:
        """Returns the flags of launch.evaluate that depend on the run of a cell."""
        return ()

    def _phases(self, cell: Cell, factor: float) -> list[PlannedPhase]:
        return planned_phases(cell, self.configs[cell.architecture], budget=self.budget, factor=factor)

    def _phase_inputs(self, cell: Cell) -> PhaseInputs:
        recipe = cell.system.labels
        return PhaseInputs(
            table_shared=self.table / SHARED,
            split=self.shared.split,
            records=self.shared.records[recipe],
            document_records=self.shared.document_records.get(recipe),
            compilation_cache=self.compilation_cache,
        )

    def _evaluation(self, cell: Cell, run: Path, evaluation: Path, *, retriever: Path | None) -> Step:
        ranking = ("--run", str(run)) if retriever is None else ("--run", str(retriever), "--rerank-by", str(run))
        return Step(
            name=f"index and evaluate {cell.name}",
            module="launch.evaluate",
            arguments=(*ranking, "--logs", str(self.shared.split), "--name", cell.name)
            + ("--bm25-results", str(self.shared.bm25_results), "--bootstrap-samples", str(_FEWEST_SAMPLES))
            + (*self.shared.evaluate_flags, *_fusion_flags(cell), *cell.system.evaluate_flags)
            + (
                *self._evaluation_flags(cell, run),
                *words_of(self.arguments.evaluate_flags),
                "--output",
                str(evaluation),
            ),
            inputs=(run, self.shared.split) if retriever is None else (run, retriever, self.shared.split),
            output=evaluation,
        )


def _fusion_flags(cell: Cell) -> tuple[str, ...]:
    """Returns the flags that leave out what is chosen on dev queries, if it is not measured."""
    measured = cell.system.ranked_by == "fusion_weighted" or "--tune-bm25" in cell.system.evaluate_flags
    return () if measured else ("--dev-queries", "0")


def _query_seconds(cell: Cell, evaluation: Path) -> dict[str, float]:
    """Returns the wall-clock seconds that a Poly-encoder takes for one query; none for other systems."""
    part = {"poly_encoder": "reranking", "poly_encoder_exhaustive": "every_document"}.get(cell.system.ranked_by)
    if part is None:
        return {}
    metrics = read_object(evaluation / "metrics.json", remedy="evaluate again")
    seconds = metrics["poly_encoder"]["seconds_per_query"]
    return {"query_seconds": round(seconds["contexts"] + seconds[part], 6)}


def _training_figures(folder: Path, trained: Mapping[str, Any], factor: float) -> dict[str, float]:
    """Returns the numbers of a run: rate, best step, dev recall, and the seconds that a step computes.

    The seconds are the median over the lines of goodput.jsonl that cover steps, without the first one, whose steps are
    compiled.
    """
    figures = {"learning_rate_factor": factor}
    figures |= {name: trained[name] for name in ("best_step", _DEV) if name in trained}
    lines = [line for line in read_goodput(folder / "run") if "event" not in line]
    steps = [(line["step"] - before["step"], line) for before, line in itertools.pairwise(lines)]
    seconds = [line["compute_seconds"] / count for count, line in steps if count > 0]
    return figures | ({"step_seconds": round(statistics.median(seconds), 5)} if seconds else {})
