"""Trains a system in phases, each a run of its own: what decides their parameters, and their steps in order.

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
from launch.comparison.phases.steps import frozen_step
from launch.steps.programs import training_step

PHASES = "phases"
_SEEDS_APART = 1000
"""The difference of the seeds of two phases, so that they read the records and draw negatives in other orders."""


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
            dataclasses.replace(
                cell, system=dataclasses.replace(cell.system, config=phase.config, refreshes=phase.refreshes)
            ),
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
    split: Path
    records: Path
    """The records of the labels."""
    document_records: Path | None
    """The same records with all documents, for phases that refresh their negatives."""
    compilation_cache: Path

    def records_of(self, phase: Phase) -> Path:
        """Returns the records of a phase."""
        if phase.refreshes is None:
            return self.records
        if self.document_records is None:
            raise InputError(f"phase {phase.name} needs records with all documents, which were not written")
        return self.document_records


def settings_of(planned: Sequence[PlannedPhase]) -> str:
    """Returns the settings of all phases as text, which decide the parameters beside the inputs of every system."""
    return repr([(one.phase, changes_of_defaults(one.config)) for one in planned])


def train_phases(
    cell: Cell, planned: Sequence[PlannedPhase], inputs: PhaseInputs, *, folder: Path, start: Path | None
) -> tuple[Chain, dict[str, Any]]:
    """Trains the phases of a cell that are not done, the last one in FOLDER/run.

    Returns:
      the chain of the cell, for further steps, and the outcome of the last launch.train.
    """
    own = [one for one in planned if not one.phase.shared]
    total = len(own) + sum(one.phase.frozen_documents for one in own) + 1
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
        flags = ()
        if run is not None and one.phase.frozen_documents:
            step = frozen_step(inputs.split, work, run=run)
            chain.run(step)
            flags = ("--document-embeddings", str(step.output))
        target = (folder if one is planned[-1] else work) / "run"
        name = f"train {one.phase.name} of {cell.name}"
        records = inputs.records_of(one.phase)
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


def _shared_run(cell: Cell, one: PlannedPhase, inputs: PhaseInputs, *, start: Path | None) -> Path:
    """Trains a phase that systems share unless it is done, and returns its run."""
    name = f"{one.phase.name}-{cell.architecture}-{cell.seed}-{one.config.training.steps}"
    folder, records = inputs.table_shared / PHASES / name, inputs.records_of(one.phase)
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
