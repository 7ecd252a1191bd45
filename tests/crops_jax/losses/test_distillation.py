"""The distillation losses by hand, against plain loops, with any masks and over devices; and what a batch learns."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from crops_jax.labels import SparseLabels, dense_labels
from crops_jax.losses import LossOptions, Split, distillation_kl, margin_mse
from tests.crops_jax.losses.reference import differences
from tests.crops_jax.losses.test_h_infonce import random_case, sparse
from tests.crops_jax.losses.test_over_devices import mesh_of

LOSSES = {"kl": distillation_kl, "margin_mse": margin_mse}
every_loss = pytest.mark.parametrize("form", LOSSES)
LN = math.log

# One query. Its scores are ln 8, ln 2 and ln 1; odds of 3 : 1, 1 : 1 and 1 : 3 are thetas of 3/4, 1/2 and 1/4. The
# other columns take part in nothing: not scored, to be ignored, padding, and one of another query.
DOCS = jnp.asarray([[LN(8)], [LN(2)], [0.0], [LN(9)], [LN(7)], [LN(5)], [LN(6)]])
LABELS = SparseLabels(
    jnp.asarray([[0, 1, 2, 3, 4, 5, -1]], jnp.int32), jnp.asarray([[5, 4, 1, 3, -1, 2, 0]], jnp.int32)
)
TEACHER = jnp.asarray([[0.75, 0.5, 0.25, jnp.nan, 0.9, 0.9, 0.9]])
MASK = jnp.asarray([True, True, True, True, True, False, True])
P, Q = (9 / 13, 3 / 13, 1 / 13), (8 / 11, 2 / 11, 1 / 11)
BY_HAND = {
    "kl": sum(p * LN(p / q) for p, q in zip(P, Q, strict=True)),
    # Margins of the encoder: ln 4, ln 8 and ln 2; of the teacher: ln 3, ln 9 and ln 3.
    "margin_mse": ((LN(4) - LN(3)) ** 2 + (LN(8) - LN(9)) ** 2 + (LN(2) - LN(3)) ** 2) / 3,
}


def loss_of(form, *arrays, **given):
    return jax.jit(lambda: LOSSES[form](*arrays, **given))()


@every_loss
def test_a_query_worked_out_by_hand(form):
    query = jnp.ones((1, 1))
    given = {"temperature": 1.0, "doc_mask": MASK}
    assert float(loss_of(form, query, DOCS, LABELS, TEACHER, **given)) == pytest.approx(BY_HAND[form], rel=1e-5)
    # Temperatures divide the scores and the logits.
    warm = loss_of(form, 2 * query, DOCS, LABELS, TEACHER, **given | {"temperature": 2.0})
    assert float(warm) == pytest.approx(BY_HAND[form], rel=1e-5)
    odds = jnp.asarray([[9 / 10, 1 / 2, 1 / 10, jnp.nan, 0.9, 0.9, 0.9]])
    flat = loss_of(form, query, DOCS, LABELS, odds, **given, teacher_temperature=2.0)
    assert float(flat) == pytest.approx(BY_HAND[form], rel=1e-5)
    # The label matrix and its scores do as well.
    matrix, scores = dense_labels(LABELS, 7), jnp.asarray([[0.75, 0.5, 0.25, jnp.nan, 0.9, 0.9, jnp.nan]])
    assert float(loss_of(form, query, DOCS, matrix, scores, **given)) == pytest.approx(BY_HAND[form], rel=1e-5)


@every_loss
def test_a_teacher_that_the_encoder_agrees_with_costs_nothing(form):
    theta = jnp.asarray([[8 / 9, 2 / 3, 1 / 2, jnp.nan, 0.9, 0.9, 0.9]])  # odds of 8, 2 and 1
    given = {"temperature": 1.0, "doc_mask": MASK}
    assert abs(float(loss_of(form, jnp.ones((1, 1)), DOCS, LABELS, theta, **given))) < 1e-6


def reference(form, scores, levels, thetas, temperature, teacher_temperature, weights, mask, normalization) -> float:
    """The loss in plain loops: each pair by itself, each probability by its definition."""
    by_query = []
    for row in range(len(scores)):
        columns = [j for j in range(len(mask)) if mask[j] and levels[row][j] >= 1 and thetas[row][j] >= 0]
        theta = {j: min(max(float(thetas[row][j]), 1e-4), 1 - 1e-4) for j in columns}
        t = {j: LN(theta[j] / (1 - theta[j])) / teacher_temperature for j in columns}
        z = {j: float(scores[row][j]) / temperature for j in columns}
        if form == "kl":
            p, q = ({j: math.exp(x[j]) / sum(map(math.exp, x.values())) for j in columns} for x in (t, z))
            terms = [sum(p[j] * LN(p[j] / q[j]) for j in columns)] if len(columns) > 1 else []
        else:
            terms = [((z[a] - z[b]) - (t[a] - t[b])) ** 2 for a in columns for b in columns if a < b]
        by_query.append((float(weights[row]), terms))
    if normalization == "queries":
        by_query = [(weight, [sum(terms) / len(terms)]) for weight, terms in by_query if terms]
    total = sum(weight * sum(terms) for weight, terms in by_query)
    count = sum(weight * len(terms) for weight, terms in by_query)
    return total / count if count else 0.0


def plain_loss(q, d, temperature, *, form, matrix, thetas, weights, mask, normalization):
    return reference(form, q @ d.T, matrix, thetas, float(temperature), 1.5, weights, mask, normalization)


def case(seed):
    """A random batch with thetas of 0 and 1 and without, in the order of SparseLabels and of the label matrix."""
    q, d, matrix, weights, mask = random_case(seed, queries=6, docs=11)
    random = np.random.default_rng(seed)
    thetas = random.choice([0.0, 0.03, 0.4, 0.75, 0.999, 1.0, np.nan], matrix.shape).astype(np.float32)
    labels = sparse(matrix)
    return q, d, matrix, labels, weights, mask, thetas, entries(labels, thetas)


def entries(labels, thetas):
    columns = np.asarray(labels.doc_index)
    return np.where(columns >= 0, np.take_along_axis(thetas, np.maximum(columns, 0), axis=1), np.float32(0.5))


@functools.partial(jax.jit, static_argnames=("form", "implementation", "normalization"))
def compiled(q, d, temperature, labels, thetas, weights, mask, *, form, implementation, normalization):
    def loss(q, d, temperature):
        given = {"query_weights": weights, "doc_mask": mask, "options": LossOptions(normalization=normalization)}
        given |= {"implementation": implementation, "teacher_temperature": 1.5}
        return LOSSES[form](q, d, labels, thetas, temperature=temperature, **given)

    return jax.value_and_grad(loss, argnums=(0, 1, 2))(q, d, temperature)


@every_loss
@pytest.mark.parametrize(("implementation", "normalization"), [("dense", "anchors"), ("streaming", "queries")])
def test_loss_and_gradients_are_those_of_plain_loops(form, implementation, normalization):
    for seed in range(3):
        q, d, matrix, labels, weights, mask, thetas, of_entries = case(seed)

        plain = functools.partial(
            plain_loss, form=form, matrix=matrix, thetas=thetas, weights=weights, mask=mask, normalization=normalization
        )
        exact = np.float64(q), np.float64(d), np.float64(0.2)
        names = {"form": form, "implementation": implementation, "normalization": normalization}
        loss, gradients = compiled(q, d, np.float32(0.2), labels, of_entries, weights, mask, **names)
        assert float(loss) == pytest.approx(plain(*exact), rel=2e-5)
        assert float(loss) > 0
        for found, expected in zip(gradients, differences(plain, *exact), strict=True):
            np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4 * np.abs(expected).max())


@every_loss
def test_nothing_to_compare_is_a_loss_of_0_with_gradients_of_0(form):
    q, d, _, labels, weights, mask, _, of_entries = case(1)
    one = np.where(np.arange(of_entries.shape[1]) == 0, 0.5, np.nan).astype(np.float32)[None, :].repeat(len(q), axis=0)
    none = np.full_like(of_entries, np.nan)
    names = {"form": form, "implementation": "dense", "normalization": "anchors"}
    for thetas, given_weights, given_mask in [
        (none, weights, mask),
        (one, weights, mask),
        (of_entries, np.zeros_like(weights), mask),
        (of_entries, weights, np.zeros_like(mask)),
    ]:
        loss, gradients = compiled(q, d, np.float32(0.05), labels, thetas, given_weights, given_mask, **names)
        assert float(loss) == 0
        assert all((np.asarray(gradient) == 0).all() for gradient in gradients)
    empty = SparseLabels(*(jnp.zeros((len(q), 0), jnp.int32),) * 2)
    assert float(LOSSES[form](q, d, empty, jnp.zeros((len(q), 0)), temperature=0.1)) == 0


@every_loss
def test_any_number_of_devices_gives_the_loss_of_one(form):
    q, d, matrix, weights, mask = random_case(3, queries=8, docs=16)
    labels = sparse(matrix)
    thetas = entries(labels, np.random.default_rng(0).uniform(size=matrix.shape).astype(np.float32))
    alone = jax.device_get(value_over(None, form, (q, d, labels, thetas, weights), mask))
    split = Split(mesh_of(8))
    arrays = jax.device_put((q, d, labels, thetas, weights), NamedSharding(split.mesh, PartitionSpec("data")))
    found = jax.device_get(value_over(split, form, arrays, mask))
    assert found[0] == pytest.approx(float(alone[0]), rel=1e-6)
    for one, other in zip(found[1], alone[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def value_over(split, form, arrays, mask):
    @jax.jit
    def run(q, d, labels, thetas, weights):
        def loss(q, d):
            given = {
                "query_weights": weights,
                "doc_mask": jnp.asarray(mask),
                "split": split,
                "implementation": "streaming",
            }
            return LOSSES[form](q, d, labels, thetas, temperature=0.1, **given)

        return jax.value_and_grad(loss, argnums=(0, 1))(q, d)

    return run(*arrays)


@every_loss
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"teacher_temperature": 0.0}, "teacher_temperature must be positive, found 0.0"),
        ({"options": LossOptions(level_weights=(1, 1, 1, 1, 2))}, "its terms belong to no level"),
        ({"teacher_scores": jnp.zeros((1, 3))}, r"teacher_scores must be \(1, 7\), as labels, found \(1, 3\)"),
        ({"teacher_scores": jnp.zeros((1, 7), jnp.int32)}, "teacher_scores must be floating-point numbers"),
        ({"temperature": jnp.ones(2)}, "temperature must be a scalar"),
    ],
)
def test_what_makes_no_sense_is_refused(form, changed, message):
    given = {"teacher_scores": TEACHER, "temperature": 1.0} | changed
    with pytest.raises(ValueError, match=message):
        LOSSES[form](jnp.ones((1, 1)), DOCS, LABELS, **given)


@every_loss
def test_the_order_of_a_querys_documents_becomes_that_of_the_teacher(form):
    """With the distillation alone, from an order that has nothing to do with the teacher's."""
    random = np.random.default_rng(0)
    queries, documents, dim = 6, 5, 16
    thetas = jnp.asarray(random.permuted(np.linspace(0.05, 0.95, documents)[None, :].repeat(queries, axis=0), axis=1))
    columns = jnp.arange(queries * documents, dtype=jnp.int32).reshape(queries, documents)
    # All of one level: H-InfoNCE could not order them.
    labels = SparseLabels(columns, jnp.full((queries, documents), 4, jnp.int32))
    start = [jnp.asarray(random.normal(size=(rows, dim)), jnp.float32) for rows in (queries, queries * documents)]

    def unit(vectors):
        return vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)

    def loss(vectors):
        q, d = map(unit, vectors)
        return LOSSES[form](q, d, labels, thetas.astype(jnp.float32), temperature=0.2)

    def agreement(vectors):
        """The share of the pairs of a query's documents that encoder and teacher put into the same order."""
        q, d = map(unit, vectors)
        scores = np.asarray(jnp.take_along_axis(q @ d.T, columns, axis=1))
        pairs = [(row, a, b) for row in range(queries) for a in range(documents) for b in range(a)]
        return np.mean([(scores[r, a] > scores[r, b]) == bool(thetas[r, a] > thetas[r, b]) for r, a, b in pairs])

    @jax.jit
    def trained(vectors):
        rate = 3.0 if form == "kl" else 0.3
        return jax.lax.fori_loop(
            0, 300, lambda _, now: jax.tree.map(lambda x, slope: x - rate * slope, now, jax.grad(loss)(now)), vectors
        )

    assert agreement(start) < 0.7
    assert agreement(trained(start)) == 1
