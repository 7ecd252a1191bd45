import pytest

from crops_jax.config import TrainingConfig
from crops_jax.runs.profiling import ProfiledSteps


@pytest.fixture
def calls(monkeypatch):
    """What the profiler is asked to do."""
    made = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda folder: made.append("start"))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: made.append("stop"))
    return made


def run_steps(profile, calls, steps):
    for step in steps:
        with profile.step(step):
            calls.append(step)
        profile.after(step, None)
    profile.close()


@pytest.mark.parametrize(
    ("asked", "steps", "expected"),
    [
        ((2, 2), range(1, 6), [1, "start", 2, 3, "stop", 4, 5]),
        ((2, 2), range(3, 6), ["start", 3, "stop", 4, 5]),
        ((2, 2), range(5, 7), [5, 6]),
        ((2, 9), range(1, 4), [1, "start", 2, 3, "stop"]),
        ((0, 0), range(1, 3), [1, 2]),
    ],
)
def test_the_trace_lasts_from_the_first_step_to_the_last_or_to_the_end(tmp_path, calls, asked, steps, expected):
    run_steps(ProfiledSteps(tmp_path, *asked), calls, steps)
    assert calls == expected


@pytest.mark.parametrize("steps", [(0, 3), (3, 0), (-1, 2), (2, -1)])
def test_steps_that_make_no_sense_are_refused(steps):
    with pytest.raises(ValueError, match="profile_steps must be a first step from 1 on"):
        TrainingConfig(profile_steps=steps)
