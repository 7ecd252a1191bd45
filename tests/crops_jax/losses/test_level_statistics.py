"""Anchors, score gaps and recall in the batch by level, against plain loops over the score matrix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.config import LossConfig
from crops_jax.losses import Split, h_infonce
from crops_jax.losses.arguments import LossInputs
from crops_jax.losses.configured import configured_loss
from crops_jax.losses.hierarchical_infonce import h_infonce_terms
from crops_jax.losses.level_statistics import LevelStatistics, as_fields, as_sums, level_statistics
from crops_jax.losses.level_sums import streaming
from crops_jax.losses.terms import batch_loss
from tests.crops_jax.losses.test_h_infonce import IMPLEMENTATIONS, random_case, sparse
from tests.crops_jax.losses.test_over_devices import mesh_of

QUERIES, DOCS = 8, 24


def definition(scores, matrix, weights, mask, margin) -> LevelStatistics:
    """Pair by pair."""
    anchors, recalled, gaps = np.zeros(5, int), np.zeros(5, int), np.zeros(5)
    for row, levels in enumerate(np.where(mask, matrix, -1)):
        if margin is not None and (levels >= 4).any():
            best = scores[row][levels >= 4].max()
            levels = np.where((levels == 0) & (scores[row] >= best - margin), -1, levels)
        for column, level in enumerate(levels):
            below = scores[row][(levels >= 0) & (levels < level)]
            if level >= 1 and below.size and weights[row] > 0:
                gap = scores[row, column] - below.max()
                anchors[level - 1] += 1
                recalled[level - 1] += gap > 0
                gaps[level - 1] += gap
    return LevelStatistics(anchors, recalled, gaps)


@functools.partial(jax.jit, static_argnames=("config", "split"))
def statistics_of(q, d, labels, weights, mask, *, config, split):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "_TILE", 4)
        inputs = LossInputs(q, d, labels, query_weights=weights, doc_mask=mask)
        return configured_loss(config, inputs, temperature=jnp.float32(0.1), split=split)[2]


@pytest.mark.parametrize(
    ("implementation", "margin", "devices"),
    [
        ("dense", None, 1),
        ("streaming", 0.2, 1),
        *(
            pytest.param(implementation, margin, 8, marks=pytest.mark.slow)
            for implementation in IMPLEMENTATIONS
            for margin in (None, 0.2)
        ),
    ],
)
def test_statistics_are_those_of_the_definition(implementation, margin, devices):
    config = LossConfig(implementation=implementation, ignore_margin=margin)
    split = Split(mesh_of(devices), exchange="ring")
    for seed, kind in [(1, "mixed"), (2, "no level 0"), (5, "rare"), (3, "no anchors")]:
        q, d, matrix, weights, mask = random_case(seed, queries=QUERIES, docs=DOCS, kind=kind)
        found = statistics_of(q, d, sparse(matrix), weights, mask, config=config, split=split)
        expected = definition(np.float64(q) @ np.float64(d).T, matrix, weights, mask, margin)
        np.testing.assert_array_equal(found.anchors, expected.anchors)
        np.testing.assert_array_equal(found.recalled, expected.recalled)
        np.testing.assert_allclose(found.score_gap, expected.score_gap, atol=1e-5)
        if kind == "mixed":
            assert 0 < sum(expected.recalled) < sum(expected.anchors)


def test_an_anchor_needs_something_real_and_unignored_strictly_below():
    @jax.jit
    def of_row(levels):
        q, d = jnp.ones((1, 1)), jnp.array([[0.5], [0.25], [0.75]])
        _, sums = batch_loss("h_infonce", h_infonce_terms, LossInputs(q, d, levels[None]), temperatures=1.0)
        return level_statistics(sums, jnp.ones(1, bool))

    rows = [
        ([5, 4, 0], [0, 0, 0, 1, 1], [0, 0, 0, -0.5, -0.25]),
        ([4, 4, 4], [0] * 5, [0] * 5),
        ([4, -1, -1], [0] * 5, [0] * 5),
        ([5, 1, -1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0.25]),
        ([1, 0, 4], [1, 0, 0, 1, 0], [0.25, 0, 0, 0.25, 0]),
    ]
    for matrix, anchors, gaps in rows:
        found = of_row(np.int32(matrix))
        assert found.anchors.tolist() == anchors
        np.testing.assert_allclose(found.score_gap, gaps, atol=1e-6)


def test_sums_over_steps_become_the_fields_of_a_line():
    steps = [
        LevelStatistics(np.array([0, 3, 0, 2, 1]), np.array([0, 1, 0, 2, 0]), np.array([0, -0.5, 0, 0.5, -0.25])),
        LevelStatistics(np.array([0, 1, 0, 2, 0]), np.array([0, 1, 0, 1, 0]), np.array([0, 0.5, 0, 0.5, 0])),
    ]
    one, two = map(as_sums, steps)
    assert as_fields({name: one[name] + two[name] for name in one}) == {
        "anchors_level_1": 0,
        "anchors_level_2": 4,
        "recall_in_batch_level_2": 0.5,
        "score_gap_level_2": 0.0,
        "anchors_level_3": 0,
        "anchors_level_4": 4,
        "recall_in_batch_level_4": 0.75,
        "score_gap_level_4": 0.25,
        "anchors_level_5": 1,
        "recall_in_batch_level_5": 0.0,
        "score_gap_level_5": -0.25,
    }


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_loss_of_what_is_not_finite_is_nan(implementation):
    q, d, matrix, _, _ = random_case(1)

    @jax.jit
    def loss(q, d, temperature):
        return h_infonce(q, d, sparse(matrix), temperature=temperature, implementation=implementation)

    assert np.isfinite(loss(q, d, 0.1))
    spoilt = q.copy()
    spoilt[2, 3] = np.inf
    for arguments in [(np.full_like(q, np.nan), d, 0.1), (q, d * np.nan, 0.1), (spoilt, d, 0.1), (q, d, np.nan)]:
        assert np.isnan(loss(*arguments))
