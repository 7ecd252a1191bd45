"""The baselines' losses and the options that all losses share, against their definitions in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.losses import (
    LossOptions,
    h_infonce,
    infonce,
    multi_positive_infonce,
    rince,
    softmax_cross_entropy,
)
from crops_jax.losses.level_sums import streaming
from tests.crops_jax.losses.reference import differences, reference
from tests.crops_jax.losses.test_h_infonce import assert_close, random_case, sparse

IMPLEMENTATIONS = ["dense", "streaming"]
LOSSES = {
    "h_infonce": h_infonce,
    "infonce": infonce,
    "multi_positive_infonce": multi_positive_infonce,
    "softmax_cross_entropy": softmax_cross_entropy,
}
FALLING = np.float32([0.5, 0.4, 0.3, 0.2, 0.1])


@functools.partial(jax.jit, static_argnames=("name", "implementation", "options", "form"))
def _compiled(q, d, labels, temperature, weights, mask, log_p, *, name, implementation, options, form):
    def loss(q, d, temperature):
        given = {"temperatures": temperature, "form": form} if name == "rince" else {"temperature": temperature}
        return {**LOSSES, "rince": rince}[name](
            q,
            d,
            labels,
            implementation=implementation,
            query_weights=weights,
            doc_mask=mask,
            doc_log_probabilities=log_p,
            options=options,
            **given,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "_TILE", 4)
        patch.setattr(streaming, "_CHUNK", 7)
        return jax.value_and_grad(loss, argnums=(0, 1, 2))(q, d, temperature)


def check(name, implementation, case, temperature, *, options=None, log_p=None, form="out"):
    q, d, matrix, weights, mask = case
    options = options or LossOptions()
    loss, gradients = _compiled(
        q,
        d,
        sparse(matrix),
        jnp.float32(temperature),
        weights,
        mask,
        log_p,
        name=name,
        implementation=implementation,
        options=options,
        form=form,
    )

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
            form=form,
        )

    q, d, temperature = np.float64(q), np.float64(d), np.float64(np.float32(temperature))
    assert_close(loss, exact(q @ d.T, temperature))
    d_scores, d_temperature = differences(exact, q @ d.T, temperature)
    for actual, wanted in zip(gradients, (d_scores @ d, d_scores.T @ q, d_temperature), strict=True):
        assert_close(actual, wanted, rounding=np.finfo(np.float32).eps / np.min(temperature))
    return float(loss)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_equal_their_definitions(name, implementation):
    found = [
        check(name, implementation, random_case(seed, kind=kind), 0.1)
        for seed, kind in enumerate(["mixed", "no level 0", "rare", "all ignored", "one level", "mixed"])
    ]
    assert len(set(found)) >= 4


@pytest.mark.parametrize(("form", "implementation"), [("out", "dense"), ("in", "dense"), ("out_in", "streaming")])
def test_rince_with_a_temperature_for_each_level(implementation, form):
    for kind in ("mixed", "no level 0", "all ignored"):
        check("rince", implementation, random_case(1, kind=kind), FALLING, form=form)


@pytest.mark.parametrize("normalization", ["anchors", "sum"])
def test_rince_out_of_one_temperature_is_h_infonce(normalization):
    q, d, matrix, weights, mask = random_case(2)
    shared = {
        "query_weights": jnp.asarray(weights),
        "doc_mask": jnp.asarray(mask),
        "options": LossOptions(normalization=normalization),
    }
    arrays = jnp.asarray(q), jnp.asarray(d), sparse(matrix)
    equal = jnp.full(5, 0.07)

    def run():
        ranked, with_peers = (rince(*arrays, temperatures=equal, form=form, **shared) for form in ("out", "in"))
        return ranked, with_peers, h_infonce(*arrays, temperature=0.07, **shared)

    ranked, with_peers, graded = map(float, jax.jit(run)())
    assert ranked == pytest.approx(graded, rel=2e-7)
    assert with_peers != pytest.approx(graded, rel=1e-3)


def test_multi_positive_is_one_pass_of_infonce_for_each_positive():
    q, d, matrix, _, _ = random_case(4, kind="mixed")
    options = LossOptions(normalization="sum")
    arrays = jnp.asarray(q), jnp.asarray(d)
    total = 0.0
    for row, column in zip(*np.nonzero(matrix >= 4)):
        # This pass knows one positive of one query; the query's others take no part.
        alone = np.where(matrix >= 4, -1, matrix)
        alone[row, column] = 4
        total += float(infonce(*arrays, sparse(alone), temperature=0.1, options=options))
    together = multi_positive_infonce(*arrays, sparse(matrix), temperature=0.1, options=options)
    assert float(together) == pytest.approx(total, rel=1e-5)


OPTIONS = {
    "queries": LossOptions(normalization="queries"),
    "sum": LossOptions(normalization="sum"),
    "weights": LossOptions(level_weights=(0.0, 0.5, 1.0, 2.0, 3.0)),
    "weights a query": LossOptions(normalization="queries", level_weights=(0.0, 0.0, 0.0, 2.0, 3.0)),
    "margin": LossOptions(ignore_margin=0.3),
    "negative margin": LossOptions(ignore_margin=-0.2),
}


# Only the margin reaches into the implementations.
@pytest.mark.parametrize(("which", "implementation"), [*((one, "dense") for one in OPTIONS), ("margin", "streaming")])
def test_options_of_h_infonce(which, implementation):
    case = random_case(5, docs=13, kind="mixed")
    changed = check("h_infonce", implementation, case, 0.1, options=OPTIONS[which])
    assert changed != pytest.approx(check("h_infonce", implementation, case, 0.1), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "implementation"), [*((name, "dense") for name in LOSSES), ("rince", "dense"), ("rince", "streaming")]
)
def test_log_q_correction_weighs_level_0_by_the_inverse_probability(name, implementation):
    case = random_case(7, docs=12, kind="mixed")
    log_p = np.log(np.random.default_rng(0).uniform(1e-4, 1, 12)).astype(np.float32)
    temperature, margin = (FALLING, 0.1) if name == "rince" else (0.1, None)
    check(name, implementation, case, temperature, log_p=log_p, options=LossOptions(ignore_margin=margin))


def test_the_corrected_sum_estimates_that_of_the_corpus():
    """Over all batches, the level-0 sum of a Horvitz-Thompson estimate has the corpus's sum for its mean."""
    random = np.random.default_rng(3)
    docs, query = random.normal(size=(6, 4)).astype(np.float32), random.normal(size=(1, 4)).astype(np.float32)
    probability = random.uniform(0.2, 0.9, 6).astype(np.float32)
    positive = random.normal(size=(1, 4)).astype(np.float32)
    labels = sparse(np.array([[4, 0, 0, 0, 0, 0, 0]], np.int32))
    arrays = jnp.asarray(query), jnp.asarray(np.concatenate([positive, docs]))
    log_p = jnp.asarray([0.0, *np.log(probability)], jnp.float32)
    loss_of = jax.jit(
        lambda mask: h_infonce(*arrays, labels, temperature=1.0, doc_mask=mask, doc_log_probabilities=log_p)
    )
    mean = 0.0
    for batch in range(1 << 6):
        inside = np.array([batch >> j & 1 for j in range(6)], bool)
        chance = np.where(inside, probability, 1 - probability).prod()
        # loss = log(1 + sum / e^z), so e^loss - 1 is the sum over e^z.
        mean += chance * np.expm1(float(loss_of(np.array([True, *inside]))))
    assert mean == pytest.approx(np.exp(query @ docs.T).sum() / np.exp(query @ positive.T).item(), rel=1e-4)


def test_a_margin_ignores_likely_false_negatives_but_no_named_pair():
    q = jnp.asarray([[1.0, 0.0]])
    d = jnp.asarray([[0.8, 0.0], [0.79, 0.0], [0.5, 0.0], [0.9, 0.0]])
    labels = sparse(np.array([[4, 0, 0, 3]], np.int32))
    loss = h_infonce(q, d, labels, temperature=0.1, options=LossOptions(ignore_margin=0.05))
    without = h_infonce(q, d, labels, temperature=0.1, doc_mask=jnp.asarray([True, False, True, True]))
    assert float(loss) == pytest.approx(float(without), rel=1e-6)


def test_the_positive_of_infonce_is_the_first_of_the_highest_level():
    q, d = jnp.asarray([[1.0, 0.0]]), jnp.asarray([[0.1, 0.0], [0.7, 0.0], [0.4, 0.0], [0.0, 1.0]])
    found = infonce(q, d, sparse(np.array([[4, 5, 5, 0]], np.int32)), temperature=1.0)
    assert float(found) == pytest.approx(np.log1p(np.exp(-0.7)), rel=1e-6)


@pytest.mark.slow
def test_a_label_matrix_does_as_sparse_labels():
    q, d, matrix, weights, mask = random_case(6)
    for name, loss in LOSSES.items():
        both = [
            loss(
                jnp.asarray(q),
                jnp.asarray(d),
                labels,
                temperature=0.1,
                implementation="dense",
                query_weights=jnp.asarray(weights),
                doc_mask=jnp.asarray(mask),
                options=LossOptions(ignore_margin=0.2),
            )
            for labels in (sparse(matrix), jnp.asarray(matrix))
        ]
        assert float(both[0]) == pytest.approx(float(both[1]), rel=1e-6), name


def test_errors_name_the_loss_and_the_rule():
    q, d, matrix, _, _ = random_case(1)
    arrays = jnp.asarray(q), jnp.asarray(d), sparse(matrix)
    with pytest.raises(ValueError, match="rince: temperatures must be \\[5\\]"):
        rince(*arrays, temperatures=jnp.ones(4))
    with pytest.raises(ValueError, match="form must be 'out', 'in' or 'out_in', found 'inside'"):
        rince(*arrays, temperatures=jnp.ones(5), form="inside")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="softmax_cross_entropy: its terms belong to no level"):
        softmax_cross_entropy(*arrays, temperature=1.0, options=LossOptions(level_weights=(1, 1, 1, 1, 2)))
    with pytest.raises(ValueError, match="infonce: temperature must be a scalar"):
        infonce(*arrays, temperature=jnp.ones(2))
    for temperature, rule in [
        (-0.05, "must be positive and finite, found -0.05"),
        (0, "must be positive and finite, found 0"),
        (float("nan"), "must be positive and finite, found nan"),
        (np.float32("inf"), "must be positive and finite, found inf"),
        ("0.05", "must be a number, found str"),
    ]:
        with pytest.raises(ValueError, match=f"h_infonce: temperature {rule}"):
            h_infonce(*arrays, temperature=temperature)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="h_infonce: query_embeddings must be an array of JAX or NumPy, found list"):
        h_infonce(q.tolist(), *arrays[1:], temperature=0.05)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="h_infonce: labels must be an array of JAX or NumPy, found list"):
        h_infonce(*arrays[:2], matrix.tolist(), temperature=0.05)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"infonce: labels.level must be an array of JAX or NumPy, found list"):
        infonce(*arrays[:2], arrays[2]._replace(level=[[4]]), temperature=0.05)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="infonce: doc_log_probabilities must be \\[11\\]"):
        infonce(*arrays, temperature=1.0, doc_log_probabilities=jnp.zeros(3))
    for fields, rule in [
        ({"normalization": "mean"}, "normalization must be"),
        ({"level_weights": (1, 1)}, "level_weights must be 5 numbers >= 0"),
        ({"level_weights": (1, 1, 1, 1, -1)}, "level_weights must be 5 numbers >= 0"),
        ({"ignore_margin": float("nan")}, "ignore_margin must be finite or None"),
    ]:
        with pytest.raises(ValueError, match=rule):
            LossOptions(**fields)


LN = np.log
# e^z is 6, 3, 2 and 1 for the levels 5, 4, 3 and 0; the last two columns are an ignored document and padding.
ONE_QUERY = jnp.log(jnp.asarray([[6.0], [3.0], [2.0], [1.0], [7.0], [9.0]]))
LEVELS = jnp.asarray([[5, 4, 3, 0, -1, 0]], jnp.int32)
REAL = jnp.asarray([True, True, True, True, True, False])
BY_HAND = {
    # 6 / 12, 3 / 6 and 2 / 3.
    "h_infonce": (LN(2) + LN(2) + LN(3 / 2)) / 3,
    # The negatives are those of levels 3 and 0: 6 / 9, and 3 / 6 for the second positive.
    "infonce": LN(3 / 2),
    "multi_positive_infonce": (LN(3 / 2) + LN(2)) / 2,
    # Gains 5, 4 and 3 of 12, and 12 is also the sum of all e^z.
    "softmax_cross_entropy": (5 * LN(2) + 4 * LN(4) + 3 * LN(6)) / 12,
}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", BY_HAND)
def test_the_loss_of_one_query_is_the_one_worked_out_by_hand(name, implementation):
    given = {"temperature": 1.0, "doc_mask": REAL, "implementation": implementation}
    labels = sparse(np.asarray(LEVELS)) if implementation == "streaming" else LEVELS
    assert float(LOSSES[name](jnp.ones((1, 1)), ONE_QUERY, labels, **given)) == pytest.approx(BY_HAND[name], rel=1e-6)


def test_rince_of_one_query_is_the_one_worked_out_by_hand():
    """At the temperature 1/2, e^(s/t) is the square of e^s."""
    temperatures = jnp.asarray([1.0, 1.0, 0.5, 1.0, 0.5])
    by_level = {5: 36 / (36 + 9 + 4 + 1), 4: 3 / (3 + 2 + 1), 3: 4 / (4 + 1)}
    found = rince(jnp.ones((1, 1)), ONE_QUERY, LEVELS, temperatures=temperatures, doc_mask=REAL)
    assert float(found) == pytest.approx(-sum(map(LN, by_level.values())) / 3, rel=1e-6)


def test_the_forms_of_rince_differ_where_a_level_has_several_documents():
    """e^s is 3 and 2 for two documents of level 4, and 1 for one of level 0."""
    docs, labels = jnp.log(jnp.asarray([[3.0], [2.0], [1.0]])), jnp.asarray([[4, 4, 0]], jnp.int32)
    by_form = {"out": (LN(4 / 3) + LN(3 / 2)) / 2, "in": LN(6 / 5)}
    for form, expected in by_form.items():
        found = rince(jnp.ones((1, 1)), docs, labels, temperatures=jnp.ones(5), form=form)
        assert float(found) == pytest.approx(expected, rel=1e-6)
