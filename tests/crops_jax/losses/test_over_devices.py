"""The streaming losses over 1, 2 and 8 devices, gathered and in a ring; and the memory that they need."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from crops_jax.labels import SparseLabels
from crops_jax.losses import LossOptions, Split, h_infonce
from crops_jax.losses.level_sums import streaming
from tests.crops_jax.losses.test_h_infonce import assert_close, definition, definition_gradients, random_case, sparse

QUERIES, DOCS, DIM, TEMPERATURE = 16, 40, 16, 0.02


def mesh_of(*shape):
    names = ("data", "model")[: len(shape)]
    devices = np.asarray(jax.devices()[: np.prod(shape)]).reshape(shape)
    return Mesh(devices, names, axis_types=(AxisType.Auto,) * len(shape))


def case(seed=10):
    q, d, matrix, weights, mask = random_case(seed, queries=QUERIES, docs=DOCS, dim=DIM)
    return q, d, matrix, weights, mask


def over(split, arguments, **given):
    """Loss and gradients in q, d and the temperature, jitted, with queries and documents laid out over the mesh."""
    q, d, matrix, weights, mask = arguments
    labels = sparse(matrix)
    if split is not None:
        rows = NamedSharding(split.mesh, PartitionSpec(split.axes))
        q, d, labels, weights = jax.device_put((q, d, labels, weights), rows)

    @jax.jit
    def run(q, d, temperature, labels, weights, mask):
        def value(q, d, temperature):
            return h_infonce(
                q,
                d,
                labels,
                implementation="streaming",
                query_weights=weights,
                doc_mask=mask,
                split=split,
                temperature=temperature,
                **given,
            )

        return jax.value_and_grad(value, argnums=(0, 1, 2))(q, d, temperature)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "_TILE", 4)
        patch.setattr(streaming, "_CHUNK", 16)
        return jax.device_get(run(q, d, np.float32(TEMPERATURE), labels, weights, mask))


@functools.cache
def alone():
    return over(None, case())


def assert_same(found, expected):
    assert found[0] == pytest.approx(float(expected[0]), rel=1e-6)
    for one, other in zip(found[1], expected[1], strict=True):
        assert_close(one, other, tolerance=1e-5)


@pytest.mark.parametrize(
    ("shape", "exchange"),
    [
        ((1,), "auto"),
        pytest.param((2,), "gather", marks=pytest.mark.slow),
        pytest.param((2,), "ring", marks=pytest.mark.slow),
        ((8,), "gather"),
        ((8,), "ring"),
    ],
)
def test_any_number_of_devices_gives_the_loss_of_one(shape, exchange):
    found = over(Split(mesh_of(*shape), exchange=exchange), case())
    assert_same(found, alone())
    q, d, matrix, weights, mask = case()
    exact = np.float64(q), np.float64(d)
    assert_close(found[0], definition(exact[0] @ exact[1].T, matrix, TEMPERATURE, weights, mask))
    for actual, wanted in zip(found[1], definition_gradients(*exact, matrix, TEMPERATURE, weights, mask), strict=True):
        assert_close(actual, wanted, rounding=np.finfo(np.float32).eps / TEMPERATURE)


@pytest.mark.slow
@pytest.mark.parametrize(("axes", "exchange"), [(("data",), "gather"), (("data", "model"), "ring")])
def test_a_batch_may_be_split_over_one_of_two_axes_or_over_both(axes, exchange):
    assert_same(over(Split(mesh_of(2, 4), axes, exchange), case()), alone())


@pytest.mark.parametrize("exchange", [pytest.param("gather", marks=pytest.mark.slow), "ring"])
def test_margin_and_log_probabilities_over_devices(exchange):
    log_p = np.log(np.random.default_rng(1).uniform(0.01, 1, DOCS)).astype(np.float32)
    given = {"doc_log_probabilities": log_p, "options": LossOptions(ignore_margin=0.1)}
    single = over(None, case(), **given)
    assert_same(over(Split(mesh_of(4), exchange=exchange), case(), **given), single)


def test_auto_gathers_until_a_device_would_hold_more_than_a_gigabyte():
    def exchange(docs, dim, itemsize):
        plan = streaming.plan_over(mesh_of(8), ("data",), queries=docs, docs=docs, dim=dim, itemsize=itemsize)
        return plan.exchange

    assert exchange(1 << 17, 768, 2) == "gather"
    assert exchange(1 << 18, 768, 2) == "ring"
    assert exchange(1 << 18, 256, 4) == "gather"


def test_devices_that_do_not_divide_the_batch_are_refused():
    q, d, matrix, _, _ = case()
    with pytest.raises(ValueError, match="16 queries and 39 documents cannot be split over 8 devices"):
        h_infonce(
            q, d[:-1], sparse(matrix[:, :-1]), temperature=1.0, implementation="streaming", split=Split(mesh_of(8))
        )


def temporaries(size, dim, *, split=None, dtype=jnp.float32, k=32):
    """Bytes that the compiled program holds on a device beside its arguments, the loss and the gradients."""
    place = None if split is None else NamedSharding(split.mesh, PartitionSpec(split.axes))
    embeddings = jax.ShapeDtypeStruct((size, dim), dtype, sharding=place)
    labels = SparseLabels(*[jax.ShapeDtypeStruct((size, k), jnp.int32, sharding=place)] * 2)

    def loss(q, d, labels, temperature):
        return h_infonce(q, d, labels, temperature=temperature, implementation="streaming", split=split)

    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 3)))
    compiled = gradient.lower(embeddings, embeddings, labels, jax.ShapeDtypeStruct((), jnp.float32)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_of_32_k_queries_and_documents():
    assert temporaries(1 << 15, 256) <= 0.3e9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "dim", "dtype", "most"),
    [
        (1 << 15, 256, jnp.bfloat16, 0.3e9),
        (1 << 15, 768, jnp.float32, 0.5e9),
        (1 << 15, 768, jnp.bfloat16, 0.5e9),
        (1 << 17, 256, jnp.float32, 1.2e9),
        (1 << 17, 256, jnp.bfloat16, 1.2e9),
    ],
)
def test_memory_of_targets(size, dim, dtype, most):
    assert temporaries(size, dim, dtype=dtype) <= most


@pytest.mark.slow
def test_memory_grows_linearly_in_the_batch():
    one, two, four = (temporaries(size, 64) for size in (1 << 16, 1 << 17, 1 << 18))
    # A constant, one tile, and what doubles with the batch; a matrix would grow fourfold.
    assert four - two <= 2.2 * (two - one)
    assert four < 2.1 * two


@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["gather", "ring"])
def test_memory_of_a_device_is_its_share(exchange):
    size, dim = 1 << 15, 512
    found = temporaries(size, dim, split=Split(mesh_of(8), exchange=exchange), k=8)
    all_documents = size * dim * 4
    share = all_documents // 8
    # Gathered: all documents and their gradient. In a ring: two blocks and two gradients of blocks. And one tile.
    held = 2 * all_documents if exchange == "gather" else 4 * share
    assert found <= held + 2 * share + 2.5 * streaming._TILE**2 * 4
