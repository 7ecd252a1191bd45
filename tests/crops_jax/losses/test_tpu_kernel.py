"""The TPU kernels, interpreted on CPU, against the tiles; and compiled for a slice that is not attached."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from crops_jax.losses.level_sums import tpu_kernel
from tests.crops_jax.losses.engines import assert_same, side_by_side
from tests.crops_jax.losses.test_over_devices import mesh_of


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(tpu_kernel, "_QUERY_TILE", 4)
    monkeypatch.setattr(tpu_kernel, "_DOC_TILE", 8)
    monkeypatch.setattr(tpu_kernel, "_LANES", 4)


def both_engines(*sizes, **case):
    return side_by_side("tpu kernels", *sizes, **case)


@pytest.mark.parametrize(("queries", "docs", "dim"), [(5, 11, 6), pytest.param(9, 3, 5, marks=pytest.mark.slow)])
def test_the_kernels_do_as_the_tiles(queries, docs, dim):
    assert_same(both_engines(queries, docs, dim))


def test_with_a_margin_offsets_and_several_temperatures():
    assert_same(both_engines(7, 13, 5, temperatures=(0.3, 0.1), margin=True))


@pytest.mark.slow
def test_in_bfloat16():
    assert_same(both_engines(5, 11, 6, dtype="bfloat16"), tolerance=1e-2)


@pytest.mark.slow
def test_in_a_ring_of_two():
    assert_same(both_engines(6, 10, 5, mesh=mesh_of(2), exchange="ring"))


_COMPILE = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from crops_jax.labels import SparseLabels
from crops_jax.losses import Split, h_infonce

dtype, exchange = sys.argv[1:]
devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
mesh = Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))
rows, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
embeddings = jax.ShapeDtypeStruct((8192, 256), dtype, sharding=rows)
labels = SparseLabels(*[jax.ShapeDtypeStruct((8192, 32), jnp.int32, sharding=rows)] * 2)

def loss(q, d, temperature, labels):
    split = Split(mesh, exchange=exchange)
    return h_infonce(q, d, labels, temperature=temperature, implementation="pallas", split=split)

temperature = jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)
lowered = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))).lower(embeddings, embeddings, temperature, labels)
compiled = lowered.compile()
temporary = compiled.memory_analysis().temp_size_in_bytes
print(json.dumps({"kernels": lowered.as_text().count("tpu_custom_call"), "temporary": temporary}))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (make dev)")
@pytest.mark.parametrize(("dtype", "exchange"), [("bfloat16", "gather"), ("float32", "ring")])
def test_the_kernels_compile_for_a_slice_that_is_not_attached(dtype, exchange):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        # Several compilers may run side by side: none of them opens a device.
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
        "PYTHONPATH": os.getcwd(),
    }
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE, dtype, exchange], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kernels"] >= 3
    # Gathered documents and their gradient, or two blocks of each; never a matrix of 8,192 x 2,048 scores.
    assert found["temporary"] < 8192 * 2048 * 4 / 2
