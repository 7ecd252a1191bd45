"""The configuration of a cell: the same steps and tokens for every system, whatever else it changes."""

import numpy as np
import pytest

from crops_jax.config import Config
from crops_jax.program import load_config
from launch.comparison.arguments import CompareArguments, budget_of
from launch.comparison.cells import Cell
from launch.comparison.configurations import base_configs, cell_config, equal_tokens
from launch.comparison.systems import SYSTEMS

ARGUMENTS = CompareArguments(output="o")
BUDGET = budget_of(ARGUMENTS)
CELLS = [
    Cell(system=system, architecture=architecture, seed=1)
    for system in SYSTEMS.values()
    for architecture in system.architectures
]

OTHER_ENCODERS = {
    "adore": {"shared_towers": False},
    "adore_star": {"shared_towers": False},
    "poly_encoder": {"query_codes": 64},
    "poly_encoder_upper_bound": {"query_codes": 64},
}
"""The fields of the encoder in which a system differs from every other one."""


def configured(cell: Cell, *, factor: float = 1.0) -> Config:
    return cell_config(cell, base_configs(BUDGET)[cell.architecture], budget=BUDGET, factor=factor)


def test_equal_tokens_by_hand():
    """tiny_cpu: 64 queries of 16 tokens with 3 documents of 32 are 64 x 112 = 7168 tokens.

    With one document a query and its text are 48 tokens: 149 queries fit, and 144 is the multiple of 8. With 4
    documents they are 144 tokens: 49 fit.
    """
    base = load_config("tiny_cpu")
    assert equal_tokens(base, 3) == 64
    assert equal_tokens(base, 1) == 144
    assert equal_tokens(base, 4) == 48
    assert equal_tokens(base.replace(data={"queries_per_batch": 63}), 1) == 63 * 112 // 48


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.pair)
def test_every_trained_cell_has_the_same_steps_and_no_more_tokens(cell: Cell):
    base, config = base_configs(BUDGET)[cell.architecture], configured(cell)

    def tokens(one: Config) -> int:
        return one.data.queries_per_batch * (
            one.encoder.max_query_tokens + one.data.documents_per_query * one.encoder.max_document_tokens
        )

    changed = OTHER_ENCODERS.get(cell.system.name, {})
    assert config.encoder == base.replace(encoder=changed).encoder
    assert config.training.seed == 1
    assert 0.9 * tokens(base) <= tokens(config) <= tokens(base)
    if cell.system.trained:
        assert config.training.steps == BUDGET.steps
        # The last step is measured: an evaluation before it could choose another checkpoint.
        assert config.training.evaluate_every_steps == BUDGET.steps
        assert config.optimizer == base.optimizer


def test_the_learning_rate_is_that_of_the_base_times_the_factor():
    [cell] = [cell for cell in CELLS if cell.pair == "crops-transformer"]
    assert configured(cell, factor=0.5).optimizer.learning_rate == pytest.approx(5e-4)


def test_an_untrained_encoder_keeps_its_weights():
    """The one step of AdamW is smaller than the spacing of float32 numbers around any weight."""
    [cell] = [cell for cell in CELLS if cell.pair == "untrained-transformer"]
    config = configured(cell)
    assert config.training.steps == 1
    weight = np.float32(1e-20)
    assert weight - np.float32(config.optimizer.learning_rate) == weight


def test_the_fast_form_fills_in_defaults_and_what_is_given_wins():
    fast = budget_of(CompareArguments(output="o", fast=True, steps=7))
    assert (fast.seeds, fast.steps, fast.learning_rate_factors) == (2, 7, (1.0,))
    assert "--documents" in fast.world
    assert (BUDGET.seeds, BUDGET.world) == (None, "--world large")
    assert BUDGET.learning_rate_factors == (1.0,)


@pytest.mark.parametrize(
    ("world", "large"), [(None, True), ("--world large --seed 1", True), ("--seed=1 --world=large", True), ("", False)]
)
def test_the_large_world_has_its_recipe_also_with_further_flags(world, large):
    """A world of another seed is to be compared under the recipe of the default one."""
    found = budget_of(CompareArguments(output="o", world=world))
    expected = ("generated_world", "generated_world_hashed", True) if large else ("tiny_cpu", "tiny_hashed", False)
    assert (found.transformer, found.hashed, found.warm_start) == expected
    assert found.warm_start_flags == (BUDGET.warm_start_flags if large else "")
