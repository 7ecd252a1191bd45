"""The schedules of systems with mined negatives: their refreshes, their phases and their steps."""

import pytest

from crops_jax.config import NegativesConfig
from crops_jax.errors import InputError
from launch.comparison.phases.plan import Phase, Refreshes, staleness, steps_of
from launch.comparison.phases.schedules import ADORE, ADORE_STAR, ANCE, SIMANS, STAR, TRISAMPLER
from launch.comparison.systems import SYSTEMS

MINED = [system for system in SYSTEMS.values() if system.phases or system.refreshes or system.lexical_negatives]


def refreshed_after(refreshes: Refreshes, *, steps: int) -> list[int]:
    """The steps after which a run of so many steps mines."""
    settings = NegativesConfig(**refreshes.settings(steps=steps))
    return [step for step in range(steps) if settings.refreshes_after(step)]


def test_the_refreshes_of_1000_steps_by_hand():
    assert refreshed_after(STAR, steps=1000) == [500]
    assert refreshed_after(ANCE, steps=1000) == [250, 500, 750]
    assert refreshed_after(SIMANS, steps=1000) == refreshed_after(TRISAMPLER, steps=1000) == [500, 750]
    assert [one.sampler for one in (STAR, ANCE, SIMANS, TRISAMPLER)] == ["uniform", "uniform", "simans", "trisampler"]


@pytest.mark.parametrize("steps", [8, 9, 10, 11, 97, 1001, 1003])
@pytest.mark.parametrize("refreshes", [STAR, ANCE, SIMANS], ids=["star", "ance", "simans"])
def test_every_refresh_has_steps_after_it(refreshes, steps):
    found = refreshed_after(refreshes, steps=steps)
    assert len(found) == refreshes.count
    assert found[0] > 0
    assert found[-1] < steps


def test_too_few_steps_are_refused():
    with pytest.raises(InputError, match="--steps 3 are too few for 3 refreshes after a warm-up; try 8"):
        ANCE.settings(steps=3)


def test_the_phases_of_adore_by_hand():
    def plan(phases):
        counts = steps_of(phases, steps=1000)
        return [(one.name, count, one.config["loss"]["name"]) for one, count in zip(phases, counts, strict=True)]

    assert plan(ADORE) == [("warm_up_nce", 500, "infonce"), ("adore", 500, "lambda_mrr")]
    assert plan(ADORE_STAR) == [("star", 750, "pairwise_log"), ("adore", 250, "lambda_mrr")]
    # STAR begins after half of all steps, as alone.
    assert refreshed_after(ADORE_STAR[0].refreshes, steps=750) == [500]
    assert [[one.frozen_documents for one in phases] for phases in (ADORE, ADORE_STAR)] == [[False, True]] * 2
    assert ADORE[0].shared
    assert ADORE[0].config == SYSTEMS["nce"].config


@pytest.mark.parametrize("system", MINED, ids=lambda system: system.name)
def test_the_parts_of_a_system_fit_together(system):
    # Labels of clicks alone, whose negatives the mined ones replace.
    assert (system.labels.perspectives, system.labels.levels) == (("search_log",), "binary")
    refreshed = system.refreshes is not None or system.lexical_negatives
    assert system.config["data"].get("positives_per_query") == (1 if refreshed else None)
    if system.phases:
        assert sum(steps_of(system.phases, steps=1001)) == 1001
        assert system.config == system.phases[-1].config
        assert len({one.name for one in system.phases}) == len(system.phases)
        assert not any(one.shared for one in system.phases[1:])


def test_steps_that_do_not_divide_by_hand():
    """1, 2 and 1 of 4 parts of 10 steps end at 2.5, 7.5 and 10 steps, rounded down."""
    phases = [Phase(name=str(n), parts=parts) for n, parts in enumerate((1, 2, 1))]
    assert steps_of(phases, steps=10) == [2, 5, 3]
    with pytest.raises(InputError, match=r"--steps 3 are too few for 3 phases .* at least 4"):
        steps_of(phases, steps=3)


def test_staleness_is_the_age_at_the_last_step_before_the_next_refresh():
    ance = NegativesConfig(**ANCE.settings(steps=1002))
    assert (ance.warmup_steps, ance.refresh_every_steps) == (250, 251)
    assert staleness(ance, steps=1002) == {"refreshes": 3.0, "largest_staleness_steps": 250.0}
    assert staleness(NegativesConfig(), steps=1000) == {}
