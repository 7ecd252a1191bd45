"""The configurations of the phases of a cell, and what decides its result."""

import dataclasses
from pathlib import Path

import pytest

from crops_jax.config import Config
from launch.comparison.arguments import CompareArguments, budget_of
from launch.comparison.cells import Cell
from launch.comparison.configurations import base_configs
from launch.comparison.phases.running import planned_phases, remove_phases, settings_of
from launch.comparison.phases.steps import MiningInputs
from launch.comparison.systems import SYSTEMS
from tests.model_folders import write_bert

ARGUMENTS = CompareArguments(output="o", world="--documents 5")
BUDGET = dataclasses.replace(budget_of(ARGUMENTS), steps=1000)


def planned(name: str, *, base: Config | None = None, factor: float = 2.0, seed: int = 1):
    cell = Cell(system=SYSTEMS[name], architecture="transformer", seed=seed)
    given = base_configs(budget_of(ARGUMENTS))["transformer"] if base is None else base
    return planned_phases(cell, given, budget=BUDGET, factor=factor)


def test_the_phases_of_ance_share_the_steps_the_evaluations_and_the_tokens():
    base = base_configs(budget_of(ARGUMENTS))["transformer"]
    configs = [one.config for one in planned("ance")]
    assert [config.training.steps for config in configs] == [250] * 4
    assert [config.training.evaluate_every_steps for config in configs] == [250] * 4
    assert [config.training.seed for config in configs] == [1, 1001, 2001, 3001]
    assert [config.data.documents_per_query for config in configs] == [2, 3, 3, 3]
    # 16 + 2 * 32 = 80 tokens of a query and its documents: 7168 // 80 = 89, and 88 is the multiple of 8.
    assert [config.data.queries_per_batch for config in configs] == [88, 64, 64, 64]
    # The learning rate of the warm-up, which is shared, is that of the base.
    rates = [config.optimizer.learning_rate / base.optimizer.learning_rate for config in configs]
    assert rates == pytest.approx([1, 2, 2, 2])


def test_the_only_phase_of_dpr_is_tuned_and_evaluated_as_any_system():
    (one,) = planned("dpr")
    assert (one.config.training.steps, one.config.training.evaluate_every_steps, one.seed) == (1000, 1000, 1)
    assert one.config.optimizer.learning_rate == pytest.approx(2e-3)


def test_a_later_phase_has_the_sizes_of_pretrained_weights_but_not_the_weights(tmp_path):
    write_bert(tmp_path / "bert", layers=1)
    base = base_configs(budget_of(ARGUMENTS))["transformer"].replace(encoder={"weights": str(tmp_path / "bert")})
    first, second = (one.config.encoder for one in planned("star", base=base))
    assert (first.weights, second.weights) == (str(tmp_path / "bert"), "")
    assert second.layers == 1


def mining(**changes) -> MiningInputs:
    given = MiningInputs(
        split=Path("split"), labels=Path("labels"), tokenizer=Path("t"), lengths=(), records_flags=(), temperature=0.05
    )
    return dataclasses.replace(given, **changes)


def test_everything_that_decides_a_phase_decides_the_inputs_of_the_cell():
    first = settings_of(planned("ance"), mining())
    assert first == settings_of(planned("ance"), mining())
    # Another place of the table is no other setting.
    assert first == settings_of(planned("ance"), mining(split=Path("elsewhere"), labels=Path("there")))
    shorter = planned("ance")
    warm_up = dataclasses.replace(shorter[0], config=shorter[0].config.replace(training={"steps": 9}))
    others = [
        settings_of(planned("ance", seed=2), mining()),
        settings_of(planned("ance", factor=1.0), mining()),
        settings_of(planned("star"), mining()),
        settings_of(planned("ance"), mining(temperature=0.1)),
        settings_of(planned("ance"), mining(records_flags=("--seed", "1"))),
        settings_of([warm_up, *shorter[1:]], mining()),
    ]
    assert len({first, *others}) == 1 + len(others)


def test_the_phases_of_a_finished_cell_are_removed_and_its_run_is_kept(tmp_path):
    for name in ("phases/ance_1", "run"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "inputs.json").write_text("{}")
    remove_phases(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    (tmp_path / "inputs.json").write_text("{}")
    remove_phases(tmp_path)
    assert (tmp_path / "inputs.json").exists()
