"""The pairwise losses of one query, worked out by hand; ranks; what is refused."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.config import LossConfig
from crops_jax.config.loss import PAIRWISE_LOSSES
from crops_jax.labels import SparseLabels
from crops_jax.losses import LossOptions, binary_nce, lambda_loss, pairwise_log, ranknet
from crops_jax.losses.configured import _FORMULAS, _PAIR_FORMULAS, configured_implementation
from crops_jax.losses.pairwise.rank_weights import ranks
from crops_jax.losses.pairwise.scored_batch import ScoredBatch
from tests.crops_jax.losses.pairwise.definitions import PAIRWISE

LN = math.log
LOG2_3 = math.log2(3)
# Scores ln 3, 0 and ln 2 of levels 4, 2 and 0, in this order of rank: first, last, second. The next two columns are an
# ignored document and padding: they take part in nothing.
DOCS = jnp.asarray([[LN(3)], [0.0], [LN(2)], [LN(7)], [LN(9)]])
LABELS = SparseLabels(jnp.asarray([[0, 1, 3, -1]], jnp.int32), jnp.asarray([[4, 2, -1, 0]], jnp.int32))
MATRIX = jnp.asarray([[4, 2, 0, -1, 0]], jnp.int32)
MASK = jnp.asarray([True, True, True, True, False])
QUERY = jnp.ones((1, 1))

# log(1 + e^-(s_a - s_b)) of the pairs (first, last), (first, second) and (last, second).
PAIRS = (LN(4 / 3), LN(5 / 3), LN(3))
# Gains 15, 3 and 0; discounts 1, 1/2 and 1/log2(3) of ranks 1, 3 and 2; the best order is 4, 2, 0.
BEST = 15 + 3 / LOG2_3
NDCG_WEIGHTS = (12 * (1 - 1 / 2) / BEST, 15 * (1 - 1 / LOG2_3) / BEST, 3 * (1 / LOG2_3 - 1 / 2) / BEST)
BY_HAND = {
    "ranknet": sum(PAIRS) / 3,
    "lambda_mrr": (2 / 3 * PAIRS[0] + 1 / 2 * PAIRS[1] + 1 / 6 * PAIRS[2]) / 3,
    "lambda_ndcg": sum(weight * pair for weight, pair in zip(NDCG_WEIGHTS, PAIRS, strict=True)) / 3,
    "pairwise_log": (PAIRS[0] + PAIRS[1]) / 2,
    # Two negatives: logits less ln 2 are ln 3/2, ln 1/2 and ln 1.
    "binary_nce": LN(1 + 2 / 3) + LN(1 + 1 / 2) + LN(1 + 1),
}


@functools.partial(jax.jit, static_argnames=("name", "options"))
def compiled(docs, temperature, labels, log_p, *, name, options):
    def loss(docs, temperature):
        given = {"temperature": temperature, "doc_mask": MASK, "options": options}
        if name.startswith("lambda"):
            return lambda_loss(QUERY, docs, labels, metric=name.removeprefix("lambda_"), **given)
        if name == "binary_nce":
            return binary_nce(QUERY, docs, labels, doc_log_probabilities=log_p, **given)
        return {"ranknet": ranknet, "pairwise_log": pairwise_log}[name](QUERY, docs, labels, **given)

    return jax.value_and_grad(loss, argnums=(0, 1))(docs, temperature)


def loss_of(name, labels=LABELS, *, docs=DOCS, temperature=1.0, log_p=None, options=None):
    return float(compiled(docs, temperature, labels, log_p, name=name, options=options)[0])


@pytest.mark.parametrize("name", PAIRWISE)
def test_the_loss_is_the_one_worked_out_by_hand(name):
    assert loss_of(name) == pytest.approx(BY_HAND[name], rel=1e-6)
    assert loss_of(name, MATRIX) == pytest.approx(BY_HAND[name], rel=1e-6)


@pytest.mark.parametrize("name", PAIRWISE)
def test_scores_are_divided_by_the_temperature(name):
    # Scores that are twice as large at twice the temperature: the same z, and the same ranks.
    assert loss_of(name, docs=2 * DOCS, temperature=2.0) == pytest.approx(BY_HAND[name], rel=1e-6)


def test_level_weights_are_those_of_the_higher_document_of_a_pair():
    options = LossOptions(level_weights=(1, 3, 1, 2, 1))
    # Two pairs of the document of level 4, one of that of level 2.
    expected = (2 * PAIRS[0] + 2 * PAIRS[1] + 3 * PAIRS[2]) / (2 + 2 + 3)
    assert loss_of("ranknet", options=options) == pytest.approx(expected, rel=1e-6)


def test_binary_nce_with_the_probabilities_of_documents():
    # Logits are z - ln 1/4 for the positive, z - ln 1/2 and z - ln 1 for the negatives: ln 12, ln 2, ln 2.
    log_p = jnp.log(jnp.asarray([1 / 4, 1 / 2, 1.0, 1.0, 1.0]))
    expected = LN(1 + 1 / 12) + LN(1 + 2) + LN(1 + 2)
    assert loss_of("binary_nce", log_p=log_p) == pytest.approx(expected, rel=1e-6)


def test_a_margin_ignores_documents_of_other_queries_only():
    # ln 2 is within .5 of the positive's ln 3. Level 2 has ln 3 - .05, but the labels name it.
    docs = DOCS.at[1].set(LN(3) - 0.05)
    found = loss_of("pairwise_log", docs=docs, options=LossOptions(ignore_margin=0.5))
    assert found == pytest.approx(LN(1 + math.exp(-0.05)), rel=1e-6)


def test_ranks_count_a_tie_as_the_worse_order():
    score = jnp.asarray([[1.0, 3.0, 1.0, 1.0, 9.0, 2.0], [0.0, -0.0, 0.0, 0.0, 0.0, 0.0]])
    level = jnp.asarray([[5, 0, 2, 0, -1, 1], [4, 4, 0, 2, -1, 0]], jnp.int32)
    batch = ScoredBatch(score, level, jnp.zeros((2, 1), jnp.int32), jnp.zeros((2, 1), jnp.int32), None)
    np.testing.assert_array_equal(ranks(batch), [[5, 1, 4, 3, 6, 2], [4, 5, 1, 3, 6, 2]])


@pytest.mark.parametrize("name", PAIRWISE)
def test_a_row_without_pairs_is_0_and_pulls_nothing(name):
    for levels in ([0, 0, 0, 0, 0], [4, -1, -1, -1, -1], [-1, -1, -1, -1, -1]):
        found, gradients = compiled(DOCS, 1.0, jnp.asarray([levels], jnp.int32), None, name=name, options=None)
        assert float(found) == 0
        assert all((np.asarray(gradient) == 0).all() for gradient in gradients)


@pytest.mark.parametrize("implementation", ["streaming", "pallas"])
def test_other_implementations_are_refused(implementation):
    with pytest.raises(
        ValueError, match=f"ranknet: there is no implementation '{implementation}' of a loss that needs"
    ):
        ranknet(QUERY, DOCS, LABELS, temperature=1.0, implementation=implementation)
    for name in PAIRWISE:
        with pytest.raises(ValueError, match=f"{name} needs every score: implementation must be auto or dense"):
            LossConfig(name=name, implementation=implementation)


def test_log_q_correction_is_that_of_binary_nce_alone():
    assert LossConfig(name="binary_nce", log_q_correction=True).log_q_correction
    for name in set(PAIRWISE) - {"binary_nce"}:
        with pytest.raises(ValueError, match=f"{name} has no sum that log_q_correction could correct"):
            LossConfig(name=name, log_q_correction=True)


def test_a_metric_of_another_name_is_refused():
    with pytest.raises(ValueError, match="metric must be 'mrr' or 'ndcg', found 'map'"):
        lambda_loss(QUERY, DOCS, LABELS, metric="map", temperature=1.0)


def test_every_pairwise_loss_is_dense_however_large_the_batch():
    assert PAIRWISE_LOSSES == PAIRWISE == tuple(_PAIR_FORMULAS)
    assert not set(_PAIR_FORMULAS) & set(_FORMULAS)
    sizes = {"queries": 1 << 12, "docs": 1 << 14}
    for name in PAIRWISE:
        assert configured_implementation(LossConfig(name=name), LABELS, **sizes) == "dense"
    assert configured_implementation(LossConfig(), LABELS, **sizes) == "streaming"
