"""The settings of the real data sets, and the flags that go with them."""

from typing import Any

import pytest

from crops_jax.errors import InputError
from data.perspectives.judged import parse_grade_levels
from launch.comparison.arguments import CompareArguments, budget_of, identifying
from launch.comparison.real.measures import LABELS
from launch.comparison.real.settings import REAL_SETS, real_set

every_set = pytest.mark.parametrize("settings", REAL_SETS.values(), ids=REAL_SETS)


def arguments(**changes) -> CompareArguments:
    given: dict[str, Any] = {"output": "o", "real": "scifact", "logs": "logs", "weights": "folder"}
    return CompareArguments(**given | changes)


@every_set
def test_each_set_has_one_test_part_and_known_metrics(settings):
    assert bool(settings.from_time) != bool(settings.by)
    assert bool(settings.fraction) == (settings.by == "group")
    assert settings.metrics
    assert set(settings.metrics) <= LABELS.keys()
    assert 0 < settings.dev_fraction < 0.5
    assert len(set(settings.learning_rate_factors)) > 1


@every_set
def test_judged_sets_have_levels_for_pairs_and_for_grades(settings):
    assert bool(settings.positives) == bool(settings.grades)
    if settings.positives:
        assert [level for _, level in parse_grade_levels(settings.positives)] == [4]
        assert parse_grade_levels(settings.grades)[-1][1] >= 4
    assert settings.lexical_negatives == 0 or settings.grades


def test_home_depot_is_graded_in_five_steps_with_one_lexical_negative():
    settings = real_set("homedepot")
    assert parse_grade_levels(settings.grades) == [(0.0, 1), (1.0, 2), (1.33, 3), (1.67, 4), (2.0, 5)]
    assert (settings.graded_batch, settings.lexical_negatives) == ((64, 5), 1)


def test_an_unknown_set_and_missing_arguments_are_refused():
    with pytest.raises(InputError, match="--real 'amazon': name one of bestbuy, trec_session"):
        arguments(real="amazon")
    with pytest.raises(InputError, match="--real scifact needs --logs"):
        arguments(logs="")
    with pytest.raises(InputError, match="--real scifact needs --weights"):
        arguments(weights="")
    with pytest.raises(InputError, match="--weights goes with --real"):
        CompareArguments(output="o", weights="folder")


@pytest.mark.parametrize(
    ("flag", "changes"),
    [
        ("--from", {"from_time": "2026-01-01"}),
        ("--world", {"world": "--users 9"}),
        ("--transformer", {"transformer": "minilm"}),
        ("--warm-start", {"warm_start": "catalogue"}),
    ],
)
def test_what_the_settings_decide_cannot_be_given(flag, changes):
    with pytest.raises(InputError, match=f"{flag} cannot be given with --real"):
        arguments(**changes)


def test_the_budget_is_that_of_the_settings():
    settings, budget = real_set("scifact"), budget_of(arguments())
    assert (budget.steps, budget.learning_rate_factors) == (0, settings.learning_rate_factors)
    given = budget_of(arguments(steps=5, learning_rate_factors=(1.0,)))
    assert (given.steps, given.learning_rate_factors) == (5, (1.0,))


def test_the_set_and_its_weights_identify_a_table():
    named = identifying(arguments())
    assert (named["real"], named["weights"]) == ("scifact", "folder")
    assert "real" not in identifying(CompareArguments(output="o"))
