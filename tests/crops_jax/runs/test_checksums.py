import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.config import MeshConfig
from crops_jax.devices import sharding
from crops_jax.runs import checksums
from crops_jax.runs.checksums import tree_checksums


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_a_change_of_any_one_number_is_seen(dtype):
    array = np.asarray(jnp.arange(24).reshape(2, 3, 4) % 2, jnp.dtype(dtype))
    before = tree_checksums({"a": array})
    for place in np.ndindex(array.shape):
        changed = array.copy()
        changed[place] = 1 - changed[place] if dtype != "bool" else not changed[place]
        assert tree_checksums({"a": changed}) != before


def test_it_is_the_sum_by_hand():
    words = np.array([[7, 0xFFFFFFFF], [3, 1]], np.uint32)
    assert tree_checksums([words.view(np.float32)]) == {"0": (7 + 3 * 0xFFFFFFFF + 5 * 3 + 7) % (1 << 32)}


def test_swapped_numbers_scalars_and_names():
    tree = {"x": [jnp.float32(2), (jnp.array([1.0, 2.0]),)], "y": {0: jnp.zeros((0, 3))}}
    sums = tree_checksums(tree)
    assert list(sums) == ["x/0", "x/1/0", "y/0"]
    assert tree_checksums([jnp.array([2.0, 1.0])])["0"] != sums["x/1/0"]
    assert sums["y/0"] == 0


def test_the_layout_over_devices_does_not_matter():
    mesh = sharding.make_mesh(MeshConfig(data=4, model=2))
    array = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    split = jax.device_put(array, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data", "model")))
    assert tree_checksums([split]) == tree_checksums([array])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (5, 3, 4), (11, 13)])
def test_numpy_sums_what_the_devices_do(dtype, shape, monkeypatch):
    """In blocks of any size, for arrays in any order in memory."""
    monkeypatch.setattr(checksums, "_BLOCK_WORDS", 10)
    array = np.asarray(np.random.default_rng(0).normal(size=shape) * 100, jnp.dtype(dtype))
    expected = tree_checksums([jnp.asarray(array)])
    assert tree_checksums([array]) == expected
    assert tree_checksums([np.asfortranarray(array)]) == expected
