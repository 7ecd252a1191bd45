"""Chooses the training recipe of the comparison on the dev split, for every system alike, without a run of CroPS.

The candidates were committed before the first of them was trained. They train the baselines fs_lr and nce from the
shared inputs of a table of launch.compare, with at most as many tokens in a batch, the same learning rate and the seed
0. The candidate of fs_lr and 1,000 steps with the greatest Recall@10 on the dev split is chosen; the first of equal
ones. Every system takes 2,000 steps if Recall@10 of fs_lr or of nce is then larger by more than .01. No test set is
read. The first command makes the inputs that all systems share.

    python -m launch.compare --output TABLE --systems bm25,untrained
    python -m benchmarks.recipe --table TABLE --output WORK [--candidates NAME,NAME]

A candidate that is finished in WORK is not trained again, so that several calls can share the work. The last line is
JSON: the candidates with their dev recall and, when all are finished, the choice.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crops_jax.config import Config
from crops_jax.config.module import as_module
from crops_jax.program.chain import Chain
from launch.comparison.arguments import Budget, CompareArguments, budget_of
from launch.comparison.cells import Cell
from launch.comparison.configurations import base_configs, cell_config
from launch.comparison.shared import Shared, make_shared
from launch.comparison.systems import SYSTEMS
from launch.steps.programs import training_step

BEFORE = {"data": {"queries_per_batch": 64, "documents_per_query": 3}}
"""The batch of the configuration before the choice, which has the tokens of the batches of all candidates."""
LEARNING_RATE_FACTOR = 0.5
ARCHITECTURE = "transformer"
LEAST_GAIN_OF_MORE_STEPS = 0.01
DEV = "dev_recall_at_10"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a candidate changes of the recipe of a system."""

    system: str = "fs_lr"
    documents_per_query: int = 3
    lower_level_weight: float = 1.0
    """The weight of the terms of levels 1 to 3."""
    normalization: str = "anchors"
    steps: int = 1000

    @property
    def name(self) -> str:
        """The name of the folder of its run."""
        recipe = f"{self.documents_per_query}-{self.lower_level_weight:g}-{self.normalization}-{self.steps}"
        return f"{self.system}-{recipe}"


CANDIDATES = (
    *(
        Candidate(documents_per_query=documents, lower_level_weight=weight)
        for documents in (3, 2, 5)
        for weight in (1.0, 0.3, 0.1)
    ),
    Candidate(normalization="queries"),
    Candidate(normalization="queries", lower_level_weight=0.1),
    Candidate(steps=2000),
    Candidate(system="nce", documents_per_query=1),
    Candidate(system="nce", documents_per_query=1, steps=2000),
)


def config_of(candidate: Candidate, budget: Budget, base: Config) -> Config:
    """Returns the configuration of a candidate."""
    system = SYSTEMS[candidate.system]
    weight = candidate.lower_level_weight
    changes: dict[str, dict[str, Any]] = {name: dict(fields) for name, fields in system.config.items()}
    changes.setdefault("data", {})["documents_per_query"] = candidate.documents_per_query
    weights = (weight, weight, weight, 1.0, 1.0)
    changes.setdefault("loss", {}).update(level_weights=weights, normalization=candidate.normalization)
    changed = dataclasses.replace(system, config=changes)
    cell = Cell(system=changed, architecture=ARCHITECTURE, seed=0)
    longer = dataclasses.replace(budget, steps=candidate.steps)
    return cell_config(cell, base.replace(**BEFORE), budget=longer, factor=LEARNING_RATE_FACTOR)


def shared_inputs(table: Path) -> Shared:
    """Makes the labels and records of the two baselines in the shared inputs of a table, unless they are there."""
    arguments = CompareArguments(output=str(table))
    budget, systems = budget_of(arguments), [SYSTEMS[name] for name in ("fs_lr", "nce")]
    cache = table / "compilation_cache"
    return make_shared(table, arguments, systems, budget=budget, configs=base_configs(budget), compilation_cache=cache)


def train(candidate: Candidate, shared: Shared, work: Path) -> float:
    """Trains a candidate unless it is finished in its folder of `work`, and returns its Recall@10 on the dev split."""
    budget = budget_of(CompareArguments(output=str(work)))
    folder = work / candidate.name
    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(candidate, budget, base_configs(budget)[ARCHITECTURE])
    (folder / "config.py").write_text(as_module(config, heading=f"The configuration of {candidate.name}."))
    records, start = shared.records[SYSTEMS[candidate.system].labels], shared.initial_runs[ARCHITECTURE]
    chain = Chain(folder, total=1, compilation_cache=work / "compilation_cache")
    return chain.run(training_step(f"train {candidate.name}", folder, records, folder / "run", start=start))[DEV]


def choice(found: Mapping[Candidate, float]) -> dict[str, Any]:
    """Returns the recipe and the number of steps that the rules at the top of this file choose."""
    shorter = {one: recall for one, recall in found.items() if one.steps == 1000 and one.system == "fs_lr"}
    best = max(shorter, key=lambda one: shorter[one])
    gains = {
        one.system: recall - found[dataclasses.replace(one, steps=1000)]
        for one, recall in found.items()
        if one.steps == 2000
    }
    more = any(gain > LEAST_GAIN_OF_MORE_STEPS for gain in gains.values())
    return {"chosen": dataclasses.asdict(best), "gains_of_2000_steps": gains, "steps": 2000 if more else 1000}


def main() -> None:
    names = [candidate.name for candidate in CANDIDATES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="a table of launch.compare, whose inputs are used")
    parser.add_argument("--output", type=Path, required=True, help="WORK, the folder of the runs")
    parser.add_argument("--candidates", default=",".join(names), help="the candidates to train, separated by commas")
    arguments = parser.parse_args()
    chosen = arguments.candidates.split(",")
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"unknown candidates {', '.join(unknown)}; name some of {', '.join(names)}")
    shared = shared_inputs(arguments.table)
    found = {one: train(one, shared, arguments.output) for one in CANDIDATES if one.name in chosen}
    rows = [dataclasses.asdict(one) | {DEV: round(recall, 4)} for one, recall in found.items()]
    outcome: dict[str, Any] = {"candidates": rows}
    print(json.dumps(outcome | (choice(found) if len(found) == len(CANDIDATES) else {})))


if __name__ == "__main__":
    main()
