"""Writes .npy files so that a write that fails says why."""

from pathlib import Path
from typing import BinaryIO

import numpy as np


def write_array(file: Path | BinaryIO, array: np.ndarray) -> None:
    """Writes an array with the bytes of `np.save`. Raises OSError with its errno where a write fails.

    np.save writes through C, and of a full disk it only says how many items were written.
    """
    if isinstance(file, Path):
        with open(file, "wb") as opened:
            write_array(opened, array)
        return
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(array.data)
