import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.flax import save_file

from crops_jax.pretrained.tensor_files import open_tensors


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_parts_of_a_tensor_and_of_its_transpose(tmp_path, dtype):
    matrix = jnp.arange(35, dtype=dtype).reshape(5, 7) / 8
    save_file({"matrix": matrix, "scalar": jnp.asarray(3.5, dtype)}, tmp_path / "model.safetensors")
    tensors = open_tensors(tmp_path)
    expected = np.asarray(matrix, np.float32)
    stored = tensors["matrix"]
    assert (stored.shape, stored.T.shape, stored.T.T) == ((5, 7), (7, 5), stored)
    assert stored[...].dtype == np.float32
    np.testing.assert_array_equal(stored[...], expected)
    np.testing.assert_array_equal(stored.T[...], expected.T)
    rows, columns = slice(1, 4), slice(None, 6, None)
    np.testing.assert_array_equal(stored[rows, columns], expected[rows, columns])
    np.testing.assert_array_equal(stored.T[columns, rows], expected[rows, columns].T)
    assert tensors["scalar"][()] == 3.5
