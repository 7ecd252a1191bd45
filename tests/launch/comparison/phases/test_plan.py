"""The phases of each system: their steps, their seeds, and what is mined before each of them."""

import pytest

from crops_jax.errors import InputError
from launch.comparison.phases.plan import Phase, staleness, steps_of
from launch.comparison.phases.schedules import ADORE_STAR, ANCE, DPR, SIMANS, STAR, TRISAMPLER, WARM_UP
from launch.comparison.systems import SYSTEMS

PHASED = [system for system in SYSTEMS.values() if system.phases]


def plan(phases, *, steps=1000) -> list[tuple]:
    counts = steps_of(phases, steps=steps)
    return [
        (one.name, count, one.config["loss"]["name"], one.negatives and one.negatives.ranked_by)
        for one, count in zip(phases, counts, strict=True)
    ]


def test_the_plans_of_1000_steps_by_hand():
    assert plan(DPR) == [("dpr", 1000, "infonce", "bm25")]
    assert plan(STAR) == [("warm_up_nce", 500, "infonce", None), ("star", 500, "pairwise_log", "previous_run")]
    assert plan(ANCE) == [
        ("warm_up_bm25", 250, "infonce", "bm25"),
        ("ance_1", 250, "pairwise_log", "previous_run"),
        ("ance_2", 250, "pairwise_log", "previous_run"),
        ("ance_3", 250, "pairwise_log", "previous_run"),
    ]
    assert plan(ADORE_STAR) == [
        ("warm_up_nce", 500, "infonce", None),
        ("star", 250, "pairwise_log", "previous_run"),
        ("adore", 250, "lambda_mrr", None),
    ]
    assert [one.frozen_documents for one in ADORE_STAR] == [False, False, True]
    for name, phases in (("simans", SIMANS), ("trisampler", TRISAMPLER)):
        assert plan(phases) == [
            ("warm_up_nce", 500, "infonce", None),
            (f"{name}_1", 250, "infonce", "previous_run"),
            (f"{name}_2", 250, "infonce", "previous_run"),
        ]


@pytest.mark.parametrize("system", PHASED, ids=lambda system: system.name)
def test_the_phases_of_a_system_fit_together(system):
    assert sum(steps_of(system.phases, steps=1001)) == 1001
    assert system.config == system.phases[-1].config
    assert len({one.name for one in system.phases}) == len(system.phases)
    # Labels of clicks alone, whose negatives the mined ones replace.
    assert (system.labels.perspectives, system.labels.levels) == (("search_log",), "binary")
    for number, one in enumerate(system.phases):
        assert not one.shared or number == 0
        assert one.negatives is None or one.negatives.ranked_by == "bm25" or number > 0
        assert one.config["data"].get("positives_per_query") == (None if one.negatives is None else 1)


def test_one_warm_up_serves_several_systems():
    assert all(phases[0] == WARM_UP for phases in (STAR, SIMANS, TRISAMPLER))
    assert WARM_UP.shared
    assert WARM_UP.config == SYSTEMS["nce"].config
    assert len({steps_of(phases, steps=999)[0] for phases in (STAR, SIMANS, TRISAMPLER)}) == 1


def test_the_negatives_of_each_system():
    assert DPR[0].negatives is ANCE[0].negatives
    nearest = ("--top", "200", "--per-query", "20", "--sampling")
    for phases, sampling in ((STAR, "random"), (ANCE, "random"), (SIMANS, "simans"), (TRISAMPLER, "trisampler")):
        assert {one.negatives.flags for one in phases[1:] if one.negatives} == {(*nearest, sampling)}


def test_steps_that_do_not_divide_by_hand():
    """1, 2 and 1 of 4 parts of 10 steps end at 2.5, 7.5 and 10 steps, rounded down."""
    phases = [Phase(name=str(n), parts=parts) for n, parts in enumerate((1, 2, 1))]
    assert steps_of(phases, steps=10) == [2, 5, 3]
    with pytest.raises(InputError, match=r"--steps 3 are too few for 3 phases .* at least 4"):
        steps_of(phases, steps=3)


def test_staleness_is_the_length_of_the_longest_phase_after_a_refresh():
    assert staleness(ANCE, steps=1002) == {"refreshes": 3.0, "largest_staleness_steps": 251.0}
    assert staleness(STAR, steps=1000) == {"refreshes": 1.0, "largest_staleness_steps": 500.0}
    assert staleness(DPR, steps=1000) == {}
