"""The configurations of the phases of a cell and of its refreshes, and what decides its result."""

import dataclasses

import pytest

from crops_jax.config import Config
from launch.comparison.arguments import CompareArguments, budget_of
from launch.comparison.cells import Cell
from launch.comparison.configurations import base_configs, cell_config
from launch.comparison.phases.running import planned_phases, remove_phases, settings_of
from launch.comparison.systems import SYSTEMS
from tests.model_folders import write_bert

ARGUMENTS = CompareArguments(output="o", world="--documents 5")
BUDGET = dataclasses.replace(budget_of(ARGUMENTS), steps=1000)


def base_config() -> Config:
    return base_configs(budget_of(ARGUMENTS))["transformer"]


def cell(name: str, *, seed: int = 1) -> Cell:
    return Cell(system=SYSTEMS[name], architecture="transformer", seed=seed)


def planned(name: str, *, base: Config | None = None, factor: float = 2.0, seed: int = 1):
    return planned_phases(cell(name, seed=seed), base_config() if base is None else base, budget=BUDGET, factor=factor)


def test_the_phases_of_adore_star_share_the_steps_the_evaluations_and_the_tokens():
    base = base_config()
    configs = [one.config for one in planned("adore_star")]
    assert [config.training.steps for config in configs] == [750, 250]
    assert [config.training.evaluate_every_steps for config in configs] == [750, 250]
    assert [config.training.seed for config in configs] == [1, 1001]
    assert [config.data.documents_per_query for config in configs] == [2, 1]
    # 16 + 2 * 32 = 80 tokens of a query and its documents: 7168 // 80 = 89, and 88 is the multiple of 8.
    assert configs[0].data.queries_per_batch == 88
    assert [(one.negatives.warmup_steps, one.negatives.refresh_every_steps) for one in configs] == [(500, 250), (0, 0)]
    assert [config.optimizer.learning_rate / base.optimizer.learning_rate for config in configs] == [2, 2]
    # The learning rate of a warm-up that systems share is that of the base.
    rates = [one.config.optimizer.learning_rate / base.optimizer.learning_rate for one in planned("adore")]
    assert rates == pytest.approx([1, 2])


@pytest.mark.parametrize(
    ("name", "warmup", "every", "sampler"),
    [("ance", 250, 250, "uniform"), ("trisampler", 500, 250, "trisampler"), ("dpr", 0, 0, "uniform")],
)
def test_a_run_that_refreshes_is_tuned_and_evaluated_as_any_system(name, warmup, every, sampler):
    config = cell_config(cell(name), base_config(), budget=BUDGET, factor=2.0)
    negatives = config.negatives
    assert (negatives.warmup_steps, negatives.refresh_every_steps, negatives.sampler) == (warmup, every, sampler)
    assert negatives.top == 200
    assert (config.training.steps, config.training.evaluate_every_steps, config.training.seed) == (1000, 1000, 1)
    assert config.optimizer.learning_rate == pytest.approx(2e-3)


def test_a_later_phase_has_the_sizes_of_pretrained_weights_but_not_the_weights(tmp_path):
    write_bert(tmp_path / "bert", layers=1)
    base = base_config().replace(encoder={"weights": str(tmp_path / "bert")})
    first, second = (one.config.encoder for one in planned("adore", base=base))
    assert (first.weights, second.weights) == (str(tmp_path / "bert"), "")
    assert second.layers == 1


def test_everything_that_decides_a_phase_decides_the_inputs_of_the_cell():
    first = settings_of(planned("adore_star"))
    assert first == settings_of(planned("adore_star"))
    shorter = planned("adore_star")
    star = dataclasses.replace(shorter[0], config=shorter[0].config.replace(training={"steps": 9}))
    others = [
        settings_of(planned("adore_star", seed=2)),
        settings_of(planned("adore_star", factor=1.0)),
        settings_of(planned("adore")),
        settings_of([star, shorter[1]]),
    ]
    assert len({first, *others}) == 1 + len(others)


def test_the_phases_of_a_finished_cell_are_removed_and_its_run_is_kept(tmp_path):
    for name in ("phases/star", "run"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "inputs.json").write_text("{}")
    remove_phases(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    (tmp_path / "inputs.json").write_text("{}")
    remove_phases(tmp_path)
    assert (tmp_path / "inputs.json").exists()
