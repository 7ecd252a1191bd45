"""The estimate of how often documents enter a batch, against its algorithm in plain Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.hashing import document_id_words
from crops_jax.losses.log_q import no_intervals, observe

DECAY = 0.25


def run(batches, *, buckets=1 << 12):
    """What each batch of (ids, mask) gets, and the state after the last."""
    state, found = no_intervals(buckets), []
    step_of = jax.jit(observe, static_argnames="decay")
    for step, (ids, mask) in enumerate(batches, start=1):
        words = jnp.asarray(document_id_words(ids))
        state, log_p, first_seen = step_of(state, words, jnp.asarray(mask), jnp.int32(step), decay=DECAY)
        found.append((np.asarray(log_p), int(first_seen)))
    return found, state


def test_estimates_are_moving_averages_of_intervals():
    names = ["a", "b", "c"]
    present = [(1, 1, 0), (1, 0, 0), (1, 0, 0), (1, 1, 1), (1, 0, 1), (0, 1, 0)]
    found, _ = run([(names, np.array(row, bool)) for row in present])
    last, interval = {}, {}
    for step, (row, (log_p, first_seen)) in enumerate(zip(present, found, strict=True), start=1):
        new = [name for name, here in zip(names, row) if here and name not in last]
        assert first_seen == len(new)
        for column, (name, here) in enumerate(zip(names, row, strict=True)):
            if not here:
                assert log_p[column] == 0
                continue
            gap = step - last.get(name, 0)
            interval[name] = gap if name in new else (1 - DECAY) * interval[name] + DECAY * gap
            last[name] = step
            assert log_p[column] == pytest.approx(-np.log(max(interval[name], 1)), abs=1e-6)


def test_the_estimate_converges_to_the_probability():
    random = np.random.default_rng(0)
    names = [f"d{number}" for number in range(40)]
    probability = np.repeat([0.9, 0.5, 0.2, 0.05], 10)
    found, _ = run([(names, random.random(40) < probability) for _ in range(300)])
    every = run([(names, random.random(40) < probability) for _ in range(300)] + [(names, np.ones(40, bool))])[0][-1]
    # The interval between two batches of a document is estimated without bias, and its reciprocal is not.
    intervals = np.exp(-every[0]).reshape(4, 10).mean(axis=1)
    assert intervals == pytest.approx([1 / 0.9, 1 / 0.5, 1 / 0.2, 1 / 0.05], rel=0.25)
    assert found[-1][1] == 0


def test_second_copies_and_shared_buckets_change_nothing_but_the_estimate():
    ids = ["a", "a", "b"]
    found, state = run([(ids, np.array([True, False, True]))] * 2, buckets=1)
    assert found[1][0].tolist() == [0, 0, 0]  # in every batch: probability 1
    assert state.last_step.tolist() == [2]
    assert state.interval.tolist() == [1]
