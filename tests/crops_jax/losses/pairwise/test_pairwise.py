"""The pairwise losses and their gradients against their definitions in float64, and over eight devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from crops_jax.config import LossConfig
from crops_jax.losses import LossOptions, Split
from crops_jax.losses.arguments import LossInputs
from crops_jax.losses.configured import _PAIR_FORMULAS, configured_loss
from crops_jax.losses.pairwise.scored_batch import pairwise_loss
from tests.crops_jax.losses.pairwise.definitions import PAIRWISE
from tests.crops_jax.losses.reference import differences, reference
from tests.crops_jax.losses.test_h_infonce import assert_close, random_case, sparse
from tests.crops_jax.losses.test_over_devices import mesh_of

KINDS = ["mixed", "no level 0", "rare", "all ignored", "one level", "no anchors"]


@functools.partial(jax.jit, static_argnames=("name", "options", "split"))
def _compiled(q, d, labels, temperature, weights, mask, log_p, *, name, options, split=None):
    def loss(q, d, temperature):
        inputs = LossInputs(q, d, labels, weights, mask, log_p)
        return pairwise_loss(name, _PAIR_FORMULAS[name], inputs, temperature=temperature, options=options, split=split)[
            0
        ]

    return jax.value_and_grad(loss, argnums=(0, 1, 2))(q, d, temperature)


def check(name, case, *, temperature=0.1, options=None, log_p=None, labels=None):
    q, d, matrix, weights, mask = case
    options = options or LossOptions()
    labels = sparse(matrix) if labels is None else labels
    found, gradients = _compiled(
        q, d, labels, jnp.float32(temperature), weights, mask, log_p, name=name, options=options
    )
    q, d, temperature = np.float64(q), np.float64(d), np.float64(np.float32(temperature))

    def exact(scores, temperature):
        return reference(
            name,
            scores,
            matrix,
            temperature,
            weights=weights,
            mask=mask,
            log_probabilities=log_p,
            margin=options.ignore_margin,
            level_weights=options.level_weights,
            normalization=options.normalization,
            rank_scores=q @ d.T,
        )

    assert_close(found, exact(q @ d.T, temperature))
    d_scores, d_temperature = differences(exact, q @ d.T, temperature)
    for actual, wanted in zip(gradients, (d_scores @ d, d_scores.T @ q, d_temperature), strict=True):
        assert_close(actual, wanted, rounding=np.finfo(np.float32).eps / temperature)
    return float(found)


@pytest.mark.parametrize("name", PAIRWISE)
def test_losses_and_gradients_equal_their_definitions(name):
    found = [check(name, random_case(seed, kind=kind)) for seed, kind in enumerate(KINDS)]
    assert len(set(found)) >= 3
    assert found[KINDS.index("all ignored")] == 0


@pytest.mark.parametrize("name", ["lambda_ndcg", "binary_nce"])
def test_a_label_matrix_is_as_good_as_sparse_labels(name):
    case = random_case(3)
    assert check(name, case, labels=jnp.asarray(case[2])) == pytest.approx(check(name, case), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ranknet", LossOptions(normalization="queries", level_weights=(0.0, 0.5, 1.0, 2.0, 3.0))),
        ("lambda_mrr", LossOptions(normalization="sum", ignore_margin=0.3)),
        ("pairwise_log", LossOptions(normalization="queries", ignore_margin=-0.1)),
        ("binary_nce", LossOptions(level_weights=(1.0, 1.0, 1.0, 1.0, 4.0), ignore_margin=0.2)),
    ],
)
def test_options(name, options):
    case = random_case(5, docs=13)
    assert check(name, case, options=options) != pytest.approx(check(name, case), rel=1e-3)


def test_binary_nce_with_the_probabilities_of_documents():
    log_p = np.log(np.random.default_rng(0).uniform(1e-2, 1, 12)).astype(np.float32)
    check("binary_nce", random_case(7, docs=12), log_p=log_p)


@pytest.mark.parametrize("name", PAIRWISE)
def test_gradients_of_extreme_scores_are_finite(name):
    q, d, matrix, weights, mask = random_case(1)
    arguments = 100 * q, 100 * d, sparse(matrix), jnp.float32(0.01), weights, mask, None
    found, gradients = _compiled(*arguments, name=name, options=LossOptions())
    assert np.isfinite(found)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    spoilt = _compiled(q * np.float32("nan"), *arguments[1:], name=name, options=LossOptions())[0]
    assert np.isnan(spoilt)


@pytest.mark.parametrize("name", ["lambda_ndcg", "binary_nce"])
def test_eight_devices_give_the_loss_of_one(name):
    q, d, matrix, weights, mask = random_case(10, queries=16, docs=40, dim=16)
    arrays = q, d, sparse(matrix), weights
    split = Split(mesh_of(8))
    results = []
    for over in (None, split):
        if over is not None:
            arrays = jax.device_put(arrays, NamedSharding(over.mesh, PartitionSpec(over.axes)))
        q, d, labels, weights = arrays
        arguments = q, d, labels, jnp.float32(0.05), weights, mask, None
        results.append(_compiled(*arguments, name=name, options=LossOptions(ignore_margin=0.2), split=over))
    (one, gradients), (eight, others) = results
    assert float(eight) == pytest.approx(float(one), rel=1e-6)
    for gradient, other in zip(gradients, others, strict=True):
        assert_close(other, gradient, tolerance=1e-5)


def test_statistics_and_counters_are_those_of_every_loss():
    q, d, matrix, weights, mask = random_case(1)
    inputs = LossInputs(*map(jnp.asarray, (q, d)), sparse(matrix), jnp.asarray(weights), jnp.asarray(mask))

    def run(name):
        config = LossConfig(name=name, ignore_margin=0.3)
        return configured_loss(config, inputs, temperature=jnp.float32(0.1), split=Split(mesh_of(1)))

    both = [jax.jit(functools.partial(run, name))() for name in ("ranknet", "h_infonce")]
    (one, counters, levels, _), (other, other_counters, other_levels, _) = jax.device_get(both)
    assert one != other
    assert counters == other_counters
    assert counters["ignored_by_margin"] > 0
    for left, right in zip(levels, other_levels, strict=True):
        np.testing.assert_array_equal(left, right)
