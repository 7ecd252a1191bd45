"""Trains a system in phases: their configurations, what decides their parameters, and their steps in order.

TABLE/shared/phases/NAME-TOWERS-SEED-STEPS/   a first phase that several systems share
RUN_FOLDER/phases/NAME/                       the other phases of a cell; the last run is RUN_FOLDER/run
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crops_jax import __version__, artifacts, pretrained
from crops_jax.config import Config
from crops_jax.config.module import as_module, changes_of_defaults
from crops_jax.errors import InputError
from crops_jax.program.chain import Chain
from launch.comparison.arguments import Budget
from launch.comparison.cells import Cell, claim_run, release_run
from launch.comparison.configurations import cell_config
from launch.comparison.phases.plan import Phase, steps_of
from launch.comparison.phases.steps import MiningInputs, frozen_steps, refresh_steps
from launch.steps.programs import training_step

PHASES = "phases"
_SEEDS_APART = 1000
"""The difference of the seeds of two phases, so that they read the records and draw negatives in other orders."""
_STEPS_OF_A_REFRESH = 4


@dataclass(frozen=True, kw_only=True)
class PlannedPhase:
    """A phase of a cell with its configuration."""

    phase: Phase
    config: Config

    @property
    def seed(self) -> int:
        """The seed of the phase, which decides its draws too."""
        return self.config.training.seed

    def module(self, heading: str) -> str:
        """Returns the text of the module that holds the configuration."""
        return as_module(self.config, heading=heading)


def planned_phases(cell: Cell, base: Config, *, budget: Budget, factor: float) -> list[PlannedPhase]:
    """Returns the phases of a cell, whose steps add up to those of the budget.

    A phase that follows another one starts from the last step of its run, and so has no pretrained weights of its own.
    Raises InputError if a phase would have no step.
    """
    planned, phases = [], cell.system.phases
    counts = steps_of(phases, steps=budget.steps)
    for number, (phase, count) in enumerate(zip(phases, counts, strict=True)):
        config = cell_config(
            dataclasses.replace(cell, system=dataclasses.replace(cell.system, config=phase.config)),
            base,
            budget=dataclasses.replace(budget, steps=count),
            factor=1.0 if phase.shared else factor,
        )
        if number and config.encoder.weights:
            config = pretrained.resolve_config(config).replace(encoder={"weights": ""})
        config = config.replace(training={"seed": cell.seed + _SEEDS_APART * number})
        planned.append(PlannedPhase(phase=phase, config=config))
    return planned


@dataclass(frozen=True, kw_only=True)
class PhaseInputs:
    """The inputs of the phases of every cell."""

    table_shared: Path
    """TABLE/shared."""
    mining: MiningInputs
    records: Path
    """The records of the labels without mined negatives."""
    lexical_records: Path | None
    """The records of the labels with negatives by BM25."""
    compilation_cache: Path

    def of_negatives(self, phase: Phase) -> Path:
        """Returns the records of a phase, of which those with negatives of a run are only the start."""
        if phase.negatives is None or phase.negatives.ranked_by == "previous_run":
            return self.records
        if self.lexical_records is None:
            raise InputError(f"phase {phase.name} needs negatives by BM25, which were not mined")
        return self.lexical_records


def settings_of(planned: Sequence[PlannedPhase], mining: MiningInputs) -> str:
    """Returns the settings of all phases as text, which decide the parameters beside the inputs of every system."""
    parts = []
    for one in planned:
        negatives = one.phase.negatives
        flags = () if negatives is None else mining.mining_flags(negatives, seed=one.seed)
        parts.append((one.phase, changes_of_defaults(one.config), flags))
    return repr((parts, mining.writing_flags()))


def train_phases(
    cell: Cell, planned: Sequence[PlannedPhase], inputs: PhaseInputs, *, folder: Path, start: Path | None
) -> tuple[Chain, dict[str, Any]]:
    """Trains the phases of a cell that are not done, the last one in FOLDER/run.

    Returns:
      the chain of the cell, for further steps, and the outcome of the last launch.train.
    """
    own = [one for one in planned if not one.phase.shared]
    refreshes = [one for one in own if _is_refresh(one.phase)]
    total = len(own) + _STEPS_OF_A_REFRESH * len(refreshes) + sum(one.phase.frozen_documents for one in own) + 1
    chain = Chain(folder, total=total, compilation_cache=inputs.compilation_cache)
    run, outcome = start, {}
    for one in planned:
        if one.phase.shared:
            run = _shared_run(cell, one, inputs, start=start)
            continue
        work = folder / PHASES / one.phase.name
        work.mkdir(parents=True, exist_ok=True)
        artifacts.remove_temporaries(work)
        artifacts.write_text(work / "config.py", one.module(f"The configuration of {one.phase.name} of {cell.name}."))
        records, flags = _records(one, inputs, chain, work, run=run), ()
        if one.phase.frozen_documents:
            flags = ("--document-embeddings", str(work / "documents"))
        target = (folder if one is planned[-1] else work) / "run"
        name = f"train {one.phase.name} of {cell.name}"
        outcome = chain.run(training_step(name, work, records, target, start=run, flags=flags))
        run = target
    return chain, outcome


def remove_phases(folder: Path) -> None:
    """Removes what the phases of a finished cell made, except its run. The run would be trained anew if it were needed.

    Nothing happens to the folder of a run without phases.
    """
    if (folder / PHASES).exists():
        release_run(folder)
        shutil.rmtree(folder / PHASES)


def _is_refresh(phase: Phase) -> bool:
    return phase.negatives is not None and phase.negatives.ranked_by == "previous_run"


def _records(one: PlannedPhase, inputs: PhaseInputs, chain: Chain, work: Path, *, run: Path | None) -> Path:
    """Makes what a phase needs of the run of the phase before it, and returns the directory of its records."""
    negatives, steps, records = one.phase.negatives, (), inputs.of_negatives(one.phase)
    if run is not None and one.phase.frozen_documents:
        steps = frozen_steps(inputs.mining, work, run=run)
    elif run is not None and negatives is not None and _is_refresh(one.phase):
        steps, records = refresh_steps(inputs.mining, negatives, work, run=run, seed=one.seed), work / "records"
    for step in steps:
        chain.run(step)
    return records


def _shared_run(cell: Cell, one: PlannedPhase, inputs: PhaseInputs, *, start: Path | None) -> Path:
    """Trains a phase that systems share unless it is done, and returns its run."""
    name = f"{one.phase.name}-{cell.architecture}-{cell.seed}-{one.config.training.steps}"
    folder, records = inputs.table_shared / PHASES / name, inputs.of_negatives(one.phase)
    module = one.module(f"The configuration of {name}, with which several systems begin.")
    claim_run(
        folder,
        {
            "version": __version__,
            "initial_run": artifacts.fingerprint(start) if start else "",
            "records": artifacts.fingerprint(records),
            "config": hashlib.sha256(module.encode()).hexdigest(),
        },
    )
    artifacts.write_text(folder / "config.py", module)
    chain = Chain(folder, total=1, compilation_cache=inputs.compilation_cache)
    chain.run(training_step(f"train {name}", folder, records, folder / "run", start=start))
    return folder / "run"
