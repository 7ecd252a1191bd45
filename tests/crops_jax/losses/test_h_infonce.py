"""H-InfoNCE against its definition, written as a double loop in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from crops_jax.labels import SparseLabels, dense_labels
from crops_jax.losses import h_infonce
from crops_jax.losses.level_sums import api, streaming

IMPLEMENTATIONS = ["dense", "streaming"]
TOLERANCE = 5e-5


def definition(scores, matrix, temperature, weights, mask) -> float:
    """The loss from the formula of the paper, term by term; pairs in plain loops."""
    total, count = 0.0, 0.0
    for row, levels in enumerate(matrix):
        for i, level in enumerate(levels):
            below = [k for k in range(len(levels)) if mask[k] and 0 <= levels[k] < level]
            if level < 1 or not mask[i] or not below:
                continue
            z = scores[row] / temperature
            greatest = max(z[k] for k in [i, *below])
            denominator = sum(np.exp(z[k] - greatest) for k in [i, *below])
            total -= weights[row] * (z[i] - greatest - np.log(denominator))
            count += weights[row]
    return total / count if count else 0.0


def definition_gradients(q, d, matrix, temperature, weights, mask):
    """Derivatives of the definition in q, d and temperature, by the chain rule over the same loops."""
    scores = q @ d.T
    z = scores / temperature
    e, count = np.zeros_like(z), 0.0
    for row, levels in enumerate(matrix):
        for i, level in enumerate(levels):
            below = [k for k in range(len(levels)) if mask[k] and 0 <= levels[k] < level]
            if level < 1 or not mask[i] or not below:
                continue
            terms = [i, *below]
            soft = np.exp(z[row, terms] - z[row, terms].max())
            soft /= soft.sum()
            e[row, terms] += weights[row] * soft
            e[row, i] -= weights[row]
            count += weights[row]
    e /= count or 1.0
    return e @ d / temperature, e.T @ q / temperature, -(e * z).sum() / temperature


def sparse(matrix) -> SparseLabels:
    """SparseLabels of a matrix, wide enough for any row of that many columns."""
    width = matrix.shape[1] + 1
    index = np.full((len(matrix), width), -1, np.int32)
    level = np.zeros((len(matrix), width), np.int32)
    for row, levels in enumerate(matrix):
        columns = np.flatnonzero(levels)
        index[row, : len(columns)], level[row, : len(columns)] = columns, levels[columns]
    return SparseLabels(jnp.asarray(index), jnp.asarray(level))


def random_case(seed, *, queries=5, docs=11, dim=8, kind="mixed", alike=0.0):
    """Unit vectors (their cosines near `alike`), labels of a kind, weights and a document mask."""
    random = np.random.default_rng(seed)
    common = random.normal(size=dim)

    def unit(rows):
        x = random.normal(size=(rows, dim)) / np.sqrt(dim)
        x = np.sqrt(1 - alike) * x + np.sqrt(alike) * common / np.linalg.norm(common)
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    q, d = unit(queries), unit(docs)
    chances = {
        "mixed": [0.1, 0.5, 0.08, 0.08, 0.08, 0.08, 0.08],
        "no level 0": [0.2, 0, 0.2, 0.2, 0.1, 0.2, 0.1],
        "no anchors": [0.5, 0.5, 0, 0, 0, 0, 0],
        "all ignored": [1, 0, 0, 0, 0, 0, 0],
        "one level": [0, 0, 0, 0, 0, 1, 0],
        "rare": [0.02, 0.9, 0, 0, 0, 0.08, 0],
    }[kind]
    matrix = random.choice(np.arange(-1, 6), size=(queries, docs), p=chances).astype(np.int32)
    weights = random.choice([0.0, 0.5, 1.0, 2.0], size=queries).astype(np.float32)
    mask = random.random(docs) < 0.85
    if seed % 3 == 0:
        d[: docs // 2] = d[0]  # ties
    return q, d, matrix, weights, mask


@functools.partial(jax.jit, static_argnames=("implementation", "tile"))
def _compiled(q, d, labels, temperature, weights, mask, *, implementation, tile):
    def loss(q, d, temperature):
        return h_infonce(
            q,
            d,
            labels,
            temperature=temperature,
            implementation=implementation,
            query_weights=weights,
            doc_mask=mask,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "_TILE", tile)
        patch.setattr(streaming, "_CHUNK", 5)
        return jax.value_and_grad(loss, argnums=(0, 1, 2))(q, d, temperature)


def value_and_gradients(implementation, q, d, labels, temperature, weights=None, mask=None, *, tile=4):
    """The loss and its gradients in q, d and temperature, compiled once for each shape."""
    weights = np.ones(q.shape[0], np.float32) if weights is None else weights
    mask = np.ones(d.shape[0], bool) if mask is None else mask
    return _compiled(q, d, labels, jnp.float32(temperature), weights, mask, implementation=implementation, tile=tile)


def assert_close(actual, expected, *, floor=1e-6, tolerance=TOLERANCE, rounding=0.0):
    """Error relative to the largest entry; below `floor`, where everything cancels, absolute.

    rounding: what the terms of a sum keep of their own float32 rounding when they cancel (ties).
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert np.isfinite(actual).all()
    scale = max(np.abs(expected).max(), floor)
    assert np.abs(actual - expected).max() <= tolerance * scale + rounding


def check(implementation, q, d, matrix, temperature, weights, mask, *, tile=4):
    labels = sparse(matrix)
    loss, gradients = value_and_gradients(implementation, q, d, labels, temperature, weights, mask, tile=tile)
    exact = [np.asarray(x, np.float64) for x in (q, d)]
    expected = definition(exact[0] @ exact[1].T, matrix, temperature, weights, mask)
    assert_close(loss, expected)
    expected_gradients = definition_gradients(*exact, matrix, temperature, weights, mask)
    for actual, wanted in zip(gradients, expected_gradients, strict=True):
        assert_close(actual, wanted, rounding=np.finfo(np.float32).eps / temperature)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", ["mixed", "no level 0", "no anchors", "all ignored", "one level", "rare"])
@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
def test_loss_and_gradients_equal_the_definition(implementation, kind, temperature):
    for seed in range(6):
        q, d, matrix, weights, mask = random_case(seed, kind=kind)
        check(implementation, q, d, matrix, temperature, weights, mask)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["mixed", "no level 0", "rare", "no anchors"]),
    st.floats(0.01, 1.0),
    st.floats(0.0, 0.9),
)
def test_property_random_labels_scores_and_temperatures(seed, kind, temperature, alike):
    case = random_case(seed, kind=kind, alike=alike)
    for implementation in IMPLEMENTATIONS:
        check(implementation, *case[:3], temperature, *case[3:])


@pytest.mark.parametrize(("queries", "docs", "tile"), [(1, 1, 1), (1, 7, 3), (6, 2, 2), (3, 13, 13), (5, 8, 4)])
def test_any_shape_and_tile(queries, docs, tile):
    case = random_case(3, queries=queries, docs=docs)
    check("streaming", *case[:3], 0.05, *case[3:], tile=tile)


def test_the_oracles_gradient_equals_finite_differences():
    q, d, matrix, weights, mask = random_case(1)
    q, d = np.float64(q), np.float64(d)
    d_q, d_d, d_t = definition_gradients(q, d, matrix, 0.2, weights, mask)
    step = 1e-6

    def loss(q, d, temperature):
        return definition(q @ d.T, matrix, temperature, weights, mask)

    for array, gradient, other in ((q, d_q, lambda x: loss(x, d, 0.2)), (d, d_d, lambda x: loss(q, x, 0.2))):
        for place in [(0, 0), (2, 3), (4, 7)]:
            moved = np.zeros_like(array)
            moved[place] = step
            numeric = (other(array + moved) - other(array - moved)) / (2 * step)
            assert numeric == pytest.approx(gradient[place], abs=1e-7)
    assert (loss(q, d, 0.2 + step) - loss(q, d, 0.2 - step)) / (2 * step) == pytest.approx(d_t, abs=1e-7)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_temperature_gradient_survives_scores_that_are_alike(implementation):
    q, d, matrix, weights, mask = random_case(2, queries=16, docs=64, dim=32, kind="rare", alike=0.9)
    check(implementation, q, d, matrix, 0.01, weights, mask)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradients_survive_documents_that_are_alike_and_not_normalised(implementation):
    q, d, matrix, weights, mask = random_case(5, queries=8, docs=24, kind="mixed", alike=0.999)
    # So coarse that products and sums are exact: the order in which a matrix product adds is not what is tested.
    q, d = (np.round(512 * x) / 512 for x in (q, d))
    check(implementation, q * 4, d, matrix, 0.01, weights, mask)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_labels_that_name_nothing(implementation):
    q, d, *_ = random_case(1)
    nothing = jnp.zeros((q.shape[0], 0), jnp.int32)
    loss, gradients = value_and_gradients(implementation, q, d, SparseLabels(nothing, nothing), 0.1)
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_unnormalised_scores_far_apart_give_no_nan(implementation):
    q, d, matrix, weights, mask = random_case(4)
    q, d = q * 100, d * 100
    loss, gradients = value_and_gradients(implementation, q, d, sparse(matrix), 0.01, weights, mask)
    assert_close(loss, definition(np.float64(q) @ np.float64(d).T, matrix, 0.01, weights, mask))
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", ["no anchors", "all ignored", "one level"])
def test_without_anchors_loss_and_gradients_are_zero(implementation, kind):
    q, d, matrix, _, _ = random_case(5, kind=kind)
    loss, gradients = value_and_gradients(implementation, q, d, sparse(matrix), 0.05)
    assert loss == 0
    assert all((np.asarray(gradient) == 0).all() for gradient in gradients)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_weights_of_zero_leave_no_anchor(implementation):
    q, d, matrix, weights, _ = random_case(6)
    loss, gradients = value_and_gradients(implementation, q, d, sparse(matrix), 0.05, np.zeros_like(weights))
    assert loss == 0
    assert all((np.asarray(gradient) == 0).all() for gradient in gradients)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_masked_columns_change_nothing_whatever_they_hold(implementation):
    q, d, matrix, weights, mask = random_case(7)
    before = value_and_gradients(implementation, q, d, sparse(matrix), 0.05, weights, mask)
    d, matrix = d.copy(), matrix.copy()
    d[~mask], matrix[:, ~mask] = 3.0, 5
    after = value_and_gradients(implementation, q, d, sparse(matrix), 0.05, weights, mask)
    assert_close(after[0], before[0])
    assert_close(after[1][1], before[1][1])
    assert (np.asarray(after[1][1])[~mask] == 0).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_is_summed_in_float32(implementation):
    q, d, matrix, weights, mask = random_case(8, queries=8, docs=32, dim=16)
    q16, d16 = (jnp.asarray(x, jnp.bfloat16) for x in (q, d))
    loss, gradients = value_and_gradients(implementation, q16, d16, sparse(matrix), 0.05, weights, mask)
    exact = [np.asarray(x, np.float64) for x in (q16, d16)]
    assert loss.dtype == jnp.float32
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
    assert_close(loss, definition(exact[0] @ exact[1].T, matrix, 0.05, weights, mask))
    for actual, wanted in zip(gradients, definition_gradients(*exact, matrix, 0.05, weights, mask), strict=True):
        assert_close(actual, wanted, tolerance=2e-2)


def test_dense_matrix_and_sparse_labels_agree():
    q, d, matrix, _, _ = random_case(9)
    labels = sparse(matrix)
    assert (dense_labels(labels, d.shape[0]) == matrix).all()
    auto = [h_infonce(jnp.asarray(q), jnp.asarray(d), form, temperature=0.05) for form in (labels, jnp.asarray(matrix))]
    assert auto[0] == auto[1]


@pytest.mark.slow
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_one_device_and_eight_agree(implementation):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    q, d, matrix, weights, mask = random_case(10, queries=16, docs=40, dim=16)
    labels = sparse(matrix)
    alone = value_and_gradients(implementation, q, d, labels, 0.02, weights, mask)
    rows, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    spread = value_and_gradients(
        implementation,
        jax.device_put(q, rows),
        jax.device_put(d, rows),
        jax.device_put(labels, rows),
        0.02,
        jax.device_put(weights, rows),
        jax.device_put(mask, everywhere),
    )
    assert spread[0] == pytest.approx(float(alone[0]), rel=1e-6)
    for one, eight in zip(alone[1], spread[1], strict=True):
        assert_close(eight, one, tolerance=1e-5)


@pytest.mark.slow
def test_streaming_needs_memory_linear_in_the_batch():
    def temporaries(size):
        k, dim = 4, 16
        arguments = (
            jax.ShapeDtypeStruct((size, dim), jnp.float32),
            jax.ShapeDtypeStruct((size, dim), jnp.float32),
            SparseLabels(*[jax.ShapeDtypeStruct((size, k), jnp.int32)] * 2),
        )

        def loss(q, d, labels):
            return h_infonce(q, d, labels, temperature=0.05, implementation="streaming")

        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "_TILE", 128)
        small, large = temporaries(2048), temporaries(8192)
    assert large <= 4.2 * small
    assert large < 8192 * 8192


def test_errors_name_the_rule():
    q, d, matrix, _, _ = random_case(11)
    q, d, labels = jnp.asarray(q), jnp.asarray(d), sparse(matrix)
    with pytest.raises(ValueError, match="dense label matrix; pass SparseLabels"):
        h_infonce(q, d, jnp.asarray(matrix), temperature=0.05, implementation="streaming")
    with pytest.raises(ValueError, match="dense label matrix; pass SparseLabels"):
        h_infonce(q, d, jnp.asarray(matrix), temperature=0.05, implementation="pallas")
    with pytest.raises(ValueError, match="'pallas' cannot run on cpu"):
        h_infonce(q, d, labels, temperature=0.05, implementation="pallas")
    with pytest.raises(ValueError, match="no implementation 'fast'"):
        h_infonce(q, d, labels, temperature=0.05, implementation="fast")  # type: ignore[arg-type]
    for arguments, rule in [
        ((q[0], d, labels), "must be \\[queries, dim\\]"),
        ((q, d[:, :3], labels), "same dim"),
        ((q, d.astype(jnp.bfloat16), labels), "both embeddings must have one type, float32, bfloat16 or float16"),
        ((q, d, labels._replace(level=labels.level.astype(jnp.float32))), "labels.level must be int32"),
        ((q, d, labels._replace(level=labels.level[:, :1])), "one shape"),
        ((q, d, jnp.asarray(matrix[:, 1:])), "labels must be \\[queries, docs\\]"),
        ((q, d, jnp.asarray(matrix, jnp.float32)), "signed integers"),
    ]:
        with pytest.raises(ValueError, match=rule):
            h_infonce(*arguments, temperature=0.05)
    for keywords, rule in [
        ({"temperature": jnp.ones(2)}, "scalar"),
        ({"temperature": 0.05, "query_weights": jnp.ones(2)}, "query_weights must be"),
        ({"temperature": 0.05, "doc_mask": jnp.ones(d.shape[0])}, "doc_mask must be bool"),
    ]:
        with pytest.raises(ValueError, match=rule):
            h_infonce(q, d, labels, **keywords)


def test_levels_and_columns_of_numpy_must_exist():
    matrix = np.zeros((2, 3), np.int32)
    sparse_levels = SparseLabels(np.array([[0], [2]], np.int32), np.array([[4], [5]], np.int32))
    q, d = np.ones((2, 4), np.float32), np.ones((3, 4), np.float32)
    for labels in (
        matrix,
        matrix - 1,
        matrix + 5,
        sparse_levels,
        sparse_levels._replace(level=np.full_like(matrix[:, :1], -1)),
    ):
        assert np.isfinite(h_infonce(q, d, labels, temperature=0.05))
    for labels, rule in [
        (matrix + 6, r"h_infonce: levels must lie in \[-1, 5\], found \[6, 6\]"),
        (matrix - 2, r"levels must lie in \[-1, 5\], found \[-2, -2\]"),
        (sparse_levels._replace(level=np.array([[4], [9]], np.int32)), r"levels must lie in \[-1, 5\], found \[4, 9\]"),
        (
            sparse_levels._replace(doc_index=np.array([[3], [0]], np.int32)),
            r"labels.doc_index must lie in \[-1, 2\], .*3\]",
        ),
        (
            sparse_levels._replace(doc_index=np.array([[-2], [0]], np.int32)),
            r"labels.doc_index must lie in .*\[-2, 0\]",
        ),
    ]:
        with pytest.raises(ValueError, match=rule):
            h_infonce(q, d, labels, temperature=0.05)


def test_auto_streams_only_what_is_sparse_and_large():
    labels = sparse(np.zeros((2, 3), np.int32))
    runs = api.implementation_that_runs
    assert runs("auto", labels, queries=64, docs=256) == "dense"
    assert runs("auto", labels, queries=32768, docs=32768) == "streaming"
    assert runs("auto", jnp.zeros((2, 3), jnp.int32), queries=32768, docs=32768) == "dense"
    assert runs("streaming", labels, queries=2, docs=3) == "streaming"
