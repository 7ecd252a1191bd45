"""The registry of systems: every configuration loads, and every recipe is a command line of data.mine."""

import dataclasses

import pytest

from crops_jax import program
from crops_jax.errors import InputError
from data.mine import mine
from data.mining.parameters import wanted_perspectives
from launch.comparison.presentation.published import NDCG, PUBLISHED, TRAINING_HOURS, published
from launch.comparison.systems import GROUPS, SYSTEMS, LabelRecipe, System, chosen_systems
from launch.evaluate import evaluate

every_system = pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)


@every_system
def test_every_configuration_has_the_fields_that_the_system_names_and_no_other_change(system: System):
    base = program.load_config("tiny_cpu")
    before, after = dataclasses.asdict(base), dataclasses.asdict(base.replace(**system.config))
    named = {(section, name): value for section, fields in system.config.items() for name, value in fields.items()}
    assert {(section, name): after[section][name] for section, name in named} == named
    changed = {(s, name) for s, fields in after.items() for name in fields if fields[name] != before[s][name]}
    assert changed <= named.keys()
    # A section that is named differs from the base, or the system would be another one under a new name.
    assert {section for section, _ in changed} == set(system.config)


@every_system
def test_every_recipe_is_a_command_line_of_mining(system: System):
    parsed = program.parse(mine, ["--logs", "l", "--output", "o", *system.labels.flags])
    assert parsed.parameters.levels == system.labels.levels
    if system.labels.perspectives is None:
        assert parsed.perspectives is None
    else:
        assert tuple(wanted_perspectives(parsed.perspectives)) == system.labels.perspectives


@every_system
def test_every_system_stands_in_a_table_of_the_page(system: System):
    assert set(system.groups) <= set(GROUPS)
    assert system.groups
    assert system.about.endswith(".")


@pytest.mark.parametrize("system", [one for one in SYSTEMS.values() if one.runs_of], ids=lambda system: system.name)
def test_a_system_that_evaluates_the_runs_of_another_has_its_labels_and_configuration(system: System):
    other = SYSTEMS[system.runs_of]
    assert (system.labels, system.config, system.trained) == (other.labels, other.config, other.trained)
    assert set(system.architectures) <= set(other.architectures)
    assert system.ranked_by not in ("encoder", other.ranked_by)
    names = list(SYSTEMS)
    assert names.index(other.name) < names.index(system.name)


@every_system
def test_every_flag_of_evaluation_is_one_of_the_program(system: System):
    program.parse(evaluate, ["--run", "r", "--logs", "l", "--output", "o", *system.evaluate_flags])


def test_the_loss_ablation_changes_nothing_but_the_loss():
    crops = SYSTEMS["crops"]
    losses = [system for system in SYSTEMS.values() if system.groups == ("losses",)]
    assert {system.name for system in losses} == {"infonce", "multi_positive", "softmax_cross_entropy", "rince"}
    for system in losses:
        assert (system.labels, set(system.config)) == (crops.labels, {"loss"})


def test_the_cumulative_ablation_adds_one_perspective_at_a_time():
    steps = [SYSTEMS[name].labels for name in ("fs_lr", "crops_query_level", "crops_query_system")]
    assert [len(step.perspectives or ()) for step in steps] == [1, 2, 3]
    assert {step.levels for step in steps} == {"hla"}
    assert SYSTEMS["crops"].labels == LabelRecipe(perspectives=None)


def test_nce_has_neither_levels_nor_hard_negatives():
    nce = SYSTEMS["nce"]
    assert nce.labels == LabelRecipe(perspectives=("search_log",), levels="binary")
    assert nce.config == {"loss": {"name": "infonce"}, "data": {"documents_per_query": 1}}


def test_equal_recipes_have_one_name_and_different_ones_two():
    assert LabelRecipe().name == LabelRecipe(perspectives=("search_log",)).name
    recipes = {system.labels for system in SYSTEMS.values()}
    assert len({recipe.name for recipe in recipes}) == len(recipes)


def test_systems_are_chosen_by_name():
    assert [system.name for system in chosen_systems("crops, bm25")] == ["bm25", "crops"]
    assert [system.name for system in chosen_systems("")] == list(SYSTEMS)
    for text in ("magic", "crops,crops", " , "):
        with pytest.raises(InputError, match="--systems"):
            chosen_systems(text)


def test_published_figures_are_shares():
    assert PUBLISHED["crops"] == {"ct_recall@100": 0.691, "qr_recall@100": 0.401, NDCG: 0.67}
    assert all(0 < value < 1 for row in PUBLISHED.values() for value in row.values())
    assert published("crops", "transformer", "ct_recall@100") == 0.691
    assert published("bm25", "none", "ct_recall@100") == 0.429
    assert published("crops", "hashed", "ct_recall@100") is None
    assert published("crops", "transformer", "hidden_relevant_recall@100") is None
    assert published("rince", "transformer", "ct_recall@100") is None
    assert TRAINING_HOURS["infonce"] == 178
