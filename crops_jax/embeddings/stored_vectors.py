"""Converts vectors from float32 to the types that are stored, of 4, 2 or 1 byte for each number, and back.

    float32   an array [rows, dim] of float32
    bfloat16  an array [rows, dim] of uint16: the upper half of each float32, rounded to the nearest, ties to even.
              NumPy has no bfloat16: (array.astype(numpy.uint32) << 16).view(numpy.float32) decodes it
    int8      an array [rows] of records (scale: float32, values: int8 [dim]): array["scale"][:, None] * array["values"]
              decodes it; scale is the largest magnitude of the row / 127, values are rounded to the nearest

The errors of a unit vector v are, with the cosine c of v and its decoded form, and the largest magnitude m in v:
bfloat16 1 - c <= 2^-17; int8 1 - c <= dim (m / 254)^2 / 2 or slightly more, about 1e-4 if no component is an outlier.
"""

from typing import Any, Literal, get_args

import ml_dtypes
import numpy as np
from jaxtyping import Float32

VectorType = Literal["float32", "bfloat16", "int8"]
TYPES: tuple[VectorType, ...] = get_args(VectorType)

_LARGEST = 127


def encoded(vectors: Float32[np.ndarray, "rows dim"], dtype: VectorType) -> np.ndarray:
    """Returns finite vectors in the form that is stored."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    if dtype == "bfloat16":
        return vectors.astype(ml_dtypes.bfloat16).view(np.uint16)
    if dtype == "int8":
        stored = np.empty(len(vectors), stored_dtype(dtype, vectors.shape[1]))
        scale = np.abs(vectors).max(axis=1, initial=0.0) / np.float32(_LARGEST)
        stored["scale"] = scale
        stored["values"] = np.rint(vectors / np.where(scale > 0, scale, 1)[:, None])
        return stored
    return vectors


def decoded(stored: np.ndarray, dtype: VectorType) -> Float32[np.ndarray, "rows dim"]:
    """Returns stored vectors as float32."""
    if dtype == "bfloat16":
        return stored.view(ml_dtypes.bfloat16).astype(np.float32)
    if dtype == "int8":
        return stored["values"] * stored["scale"][:, None]
    return np.asarray(stored, np.float32)


def stored_dtype(dtype: VectorType, dim: int) -> np.dtype:
    """Returns the type of the entries of a stored array."""
    if dtype == "int8":
        return np.dtype([("scale", "<f4"), ("values", "i1", (dim,))])
    return np.dtype("<u2" if dtype == "bfloat16" else "<f4")


def stored_shape(dtype: VectorType, rows: int, dim: int) -> tuple[int, ...]:
    """Returns the shape of a stored array."""
    return (rows,) if dtype == "int8" else (rows, dim)


class StoredVectors:
    """Mapped vectors of 2 bytes or 1 byte for each number, whose rows are decoded when they are read.

    They can replace an array [rows, dim] of float32 in vectors[first:last], vectors[indices] and len(vectors).
    """

    def __init__(self, stored: np.ndarray, dtype: VectorType, *, dim: int):
        self._stored = stored
        self._dtype: VectorType = dtype
        self.shape = (len(stored), dim)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Float32[np.ndarray, "some dim"]:
        """Returns some rows as float32; `rows` is a slice or an array of indices."""
        return decoded(self._stored[rows], self._dtype)


Shard = np.ndarray | StoredVectors
"""Vectors [rows, dim], usually mapped; a slice or indices of rows return float32."""
