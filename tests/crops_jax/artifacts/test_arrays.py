"""Arrays on disk: the bytes of np.save, and an error that says why a write failed."""

import errno
import os

import numpy as np
import pytest

from crops_jax.artifacts.arrays import write_array


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype="<i4").reshape(2, 3).T[:, 1:],
        np.zeros((0, 3), np.float32),
        np.array([True, False]),
    ],
)
def test_the_bytes_are_those_of_np_save(tmp_path, array):
    write_array(tmp_path / "a.npy", array)
    np.save(tmp_path / "b.npy", np.ascontiguousarray(array), allow_pickle=False)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full device is Linux's")
def test_a_full_disk_is_told_by_its_errno():
    with pytest.raises(OSError) as raised, open("/dev/full", "wb", buffering=0) as full:
        write_array(full, np.zeros(10))
    assert raised.value.errno == errno.ENOSPC
