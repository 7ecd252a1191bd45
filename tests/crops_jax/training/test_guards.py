"""What a step leaves behind when its loss or gradient is not finite, how often that may be, and when a run stops."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.config import MeshConfig
from crops_jax.devices import processes, sharding
from crops_jax.errors import NamedFailure
from crops_jax.training.guards import NonFiniteSteps, RequestVote
from crops_jax.training.optimizer import make_optimizer
from crops_jax.training.state import after_step, first_state
from tests.tiny_run import CONFIG


def test_a_step_that_is_not_finite_changes_nothing_but_its_number():
    config = CONFIG.replace(optimizer={"ema_decay": 0.5}, loss={"log_q_correction": True, "log_q_buckets": 4})
    before = first_state({"kernel": jnp.ones(3)}, make_optimizer(config.optimizer, steps=9), config, steps=9)
    spoilt = jax.tree.map(lambda leaf: (leaf * jnp.nan).astype(leaf.dtype), before)
    updated = before._replace(
        parameters=spoilt.parameters,
        optimizer_state=spoilt.optimizer_state,
        document_intervals=jax.tree.map(lambda leaf: leaf + 1, before.document_intervals),
    )
    for loss, norm in [(jnp.nan, 1.0), (jnp.inf, 1.0), (1.0, jnp.nan), (1.0, jnp.inf)]:
        after = after_step(before, updated, jnp.float32(loss), jnp.float32(norm), config=config.optimizer)
        assert int(after.step) == 1
        for one, other in zip(jax.tree.leaves(after._replace(step=before.step)), jax.tree.leaves(before), strict=True):
            np.testing.assert_array_equal(one, other)
    after = after_step(before, updated, jnp.float32(1.0), jnp.float32(1.0), config=config.optimizer)
    assert int(after.step) == 1
    assert np.isnan(after.parameters["kernel"]).all()
    assert (after.document_intervals.last_step == 1).all()


def test_steps_skipped_before_a_run_went_on_count():
    class Saved:
        def wait(self):
            pass

        def last_good(self):
            return "there is no checkpoint yet"

    guard = NonFiniteSteps(Saved(), skipped=1, allowed=2, advice="think")
    assert not guard.check(3, 0.5, 0.1)
    assert guard.check(4, np.float32("nan"), 0.1)
    assert guard.skipped == 2
    with pytest.raises(NamedFailure, match=r"step 5: loss is 1.0 and the norm of its gradient inf; 2 such steps were"):
        guard.check(5, 1.0, np.inf)


@pytest.mark.parametrize("several", [False, True])
def test_a_wish_to_stop_is_answered_at_once_alone_and_a_step_later_by_several(several):
    event = threading.Event()
    vote = RequestVote(event, sharding.make_mesh(MeshConfig(data=4, model=2)), save_seconds=0, several=several)
    assert [vote.read() for _ in range(3)] == [(False, False)] * 3
    event.set()
    assert [vote.read() for _ in range(2)] == [(not several, False), (True, False)]


class Clock:
    """A clock that shows what a test sets."""

    seconds = 0.0

    def __call__(self):
        return self.seconds


def vote_by(clock, *, several):
    mesh = sharding.make_mesh(MeshConfig(data=4, model=2))
    return RequestVote(threading.Event(), mesh, save_seconds=10, several=several, now=clock)


@pytest.mark.parametrize("several", [False, True])
def test_a_save_is_due_once_so_many_seconds_after_the_one_before(several):
    clock = Clock()
    vote = vote_by(clock, several=several)
    found = []
    for clock.seconds in (0, 9.9, 10, 11, 12):
        found.append(vote.read().save)
    # Several processes read the vote of one step while the next one runs.
    assert found == [False, False, not several, several, False]
    clock.seconds = 19
    vote.saved()  # because of the number of a step
    found = []
    for clock.seconds in (28.9, 29, 30):
        found.append(vote.read().save)
    assert found == [False, not several, several]


def test_the_clock_of_the_first_process_alone_decides(monkeypatch):
    monkeypatch.setattr(processes, "_current", processes.Processes(1, 2))
    clock = Clock()
    vote = vote_by(clock, several=True)
    clock.seconds = 99
    assert [vote.read().save for _ in range(3)] == [False] * 3
