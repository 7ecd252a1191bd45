"""The GPU kernels, interpreted on CPU, against the tiles and the definition; and lowered for a GPU that is not here."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.labels import SparseLabels
from crops_jax.losses import h_infonce
from crops_jax.losses.level_sums import api, gpu_kernel, streaming
from tests.crops_jax.losses.engines import assert_same, side_by_side
from tests.crops_jax.losses.reference import differences, reference
from tests.crops_jax.losses.test_h_infonce import random_case, sparse
from tests.crops_jax.losses.test_over_devices import mesh_of
from tests.gpu_lowering import lowers_triton

# Powers of 2 instead of e: one product more in every exponent.
_ROUNDING = 5e-6
_SMALL = gpu_kernel.TileSize(queries=4, docs=8, components=4, warps=4, stages=2)


@pytest.fixture
def small_tiles(monkeypatch):
    """Several tiles in each direction, in two parts."""
    sizes = gpu_kernel.KernelSizes(_SMALL, _SMALL)
    monkeypatch.setattr(gpu_kernel, "kernel_sizes", lambda device_kind, *, dtype, dim: sizes)
    monkeypatch.setattr(gpu_kernel, "_PROGRAMS", 4)


def both_engines(*sizes, **case):
    return side_by_side("gpu kernels", *sizes, **case)


@pytest.mark.slow
@pytest.mark.parametrize(("queries", "docs", "dim"), [(5, 11, 6), (9, 3, 5)])
def test_the_kernels_do_as_the_tiles(small_tiles, queries, docs, dim):
    assert_same(both_engines(queries, docs, dim), _ROUNDING)


def test_with_a_margin_offsets_and_several_temperatures(small_tiles):
    assert_same(both_engines(7, 21, 5, temperatures=(0.3, 0.1), margin=True), _ROUNDING)


@pytest.mark.slow
def test_in_bfloat16(small_tiles):
    assert_same(both_engines(5, 11, 6, dtype="bfloat16"), 1e-2)


@pytest.mark.slow
def test_in_a_ring_of_two(small_tiles):
    assert_same(both_engines(6, 10, 5, mesh=mesh_of(2), exchange="ring"), _ROUNDING)


@pytest.mark.slow
def test_the_loss_is_that_of_the_definition(small_tiles, monkeypatch):
    q, d, matrix, weights, mask = random_case(5, queries=6, docs=19, dim=6)
    plan = streaming.Plan(None, (), "gather", 8, "gpu kernels", interpret=True)
    monkeypatch.setattr(api, "plan_over", lambda *_, **__: plan)
    labels = SparseLabels(*map(jnp.asarray, sparse(matrix)))
    fixed = {"query_weights": jnp.asarray(weights), "doc_mask": jnp.asarray(mask)}

    def loss(q, d, temperature):
        return h_infonce(q, d, labels, temperature=temperature, implementation="streaming", **fixed)

    def definition(q, d, temperature):
        return reference("h_infonce", q @ d.T, matrix, temperature, weights=np.float64(weights), mask=mask)

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    for temperature in (1.0, 0.05, 0.01):
        given = [np.float32(one) for one in (q, d, temperature)]
        found, gradients = run(*given)
        exact = [np.float64(one) for one in given]
        assert abs(found - definition(*exact)) <= 5e-5 * abs(definition(*exact))
        for one, other in zip(gradients, differences(definition, *exact), strict=True):
            assert np.abs(one - other).max() <= 5e-5 * np.abs(other).max()


def test_named_pairs_that_crowd_one_tile_are_all_taken_out(small_tiles):
    """More of them than one product of one-hot matrices takes."""
    queries, docs = 4, 8
    index = np.broadcast_to(np.arange(docs - 1, dtype=np.int32), (queries, docs - 1))
    random = np.random.default_rng(1)
    q, d = (random.normal(size=(count, 4)).astype(np.float32) for count in (queries, docs))
    plan = streaming.Plan(None, (), "gather", 8, "gpu kernels", interpret=True)
    offset = np.zeros(docs, np.float32)
    run = jax.jit(functools.partial(streaming.streaming_sums, plan))
    raw = run(q, d, jnp.ones(1), jnp.asarray(index), jnp.asarray(offset), None)
    np.testing.assert_allclose(raw.greatest, q @ d[-1], rtol=1e-5)
    np.testing.assert_allclose(raw.log_total[:, 0], 0, atol=1e-6)


def test_sizes_are_those_of_the_device():
    sizes = functools.partial(gpu_kernel.kernel_sizes, dtype=jnp.bfloat16)
    for kind, shared in (("NVIDIA H100 80GB HBM3", 227), ("NVIDIA A100-SXM4-40GB", 163), ("NVIDIA L4", 99)):
        for dim in (5, 64, 256, 384, 768, 1024):
            for dtype in (jnp.bfloat16, jnp.float32):
                for size in sizes(kind, dim=dim, dtype=dtype):
                    held = size.queries * (1 if dim <= size.components else size.stages)
                    taken = (held + size.stages * size.docs) * size.components * jnp.dtype(dtype).itemsize
                    assert taken <= shared * 1024
    assert sizes("NVIDIA H100 80GB HBM3", dim=200).sums.components == 256
    assert sizes("NVIDIA H100 80GB HBM3", dim=768) != sizes("NVIDIA L4", dim=768)


@lowers_triton
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("dim", [100, 256, 768, 1024])
def test_the_kernels_lower_for_a_gpu_that_is_not_here(dtype, dim):
    shape, of = (1000, dim), jax.ShapeDtypeStruct
    itemsize = jnp.dtype(dtype).itemsize
    plan = streaming.plan_over(
        None,
        (),
        queries=shape[0],
        docs=shape[0],
        dim=dim,
        itemsize=itemsize,
        engine="gpu kernels",
        device_kind="NVIDIA H100",
    )

    def gradients(q, d, temperatures, doc_index, offset, threshold):
        def total(q, d, temperatures):
            raw = streaming.streaming_sums(plan, q, d, temperatures, doc_index, offset, threshold)
            return raw.log_total.sum() + raw.named.sum()

        return jax.grad(total, argnums=(0, 1, 2))(q, d, temperatures)

    rows = [of(shape, dtype)] * 2
    labels = of((shape[0], 8), jnp.int32)
    vectors = [of((length,), jnp.float32) for length in (5, shape[0], shape[0])]
    traced = jax.jit(gradients).trace(*rows, vectors[0], labels, *vectors[1:])
    assert traced.lower(lowering_platforms=("cuda",)).as_text().count("triton") >= 2
