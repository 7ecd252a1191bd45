"""Opens the tensors of a folder's safetensors files by name; only the parts that are indexed are read.

Only safetensors files are read: other formats can run code when they are opened.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import EllipsisType

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open

from crops_jax.errors import InputError

_READ_TYPES = ("F32", "F16", "BF16", "F64")


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file. `tensor[1:3, 0:7]` reads that part as float32, and `tensor[...]` reads all of it.

    `shape` is the shape of the tensor after the transposition, if `transposed` is set. `first_row` is the row of the
    tensor in the file at which it begins.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    transposed: bool = False
    first_row: int = 0

    def part(self, index: int, count: int) -> "StoredTensor":
        """Returns one of `count` equal parts of the rows, unread, for matrices that are stored as one. It precedes `T`.

        Raises InputError if the rows cannot be divided by `count`.
        """
        rows, *others = self.shape
        if rows % count:
            raise InputError(f"{self.file}: tensor {self.name} has {rows} rows, which {count} matrices cannot share")
        size = rows // count
        return dataclasses.replace(self, shape=(size, *others), first_row=self.first_row + index * size)

    @property
    def T(self) -> "StoredTensor":
        """Returns the transposed tensor, unread."""
        return dataclasses.replace(self, shape=self.shape[::-1], transposed=not self.transposed)

    def __getitem__(self, part: EllipsisType | tuple[slice, ...]) -> Float32[np.ndarray, "..."]:
        """Reads a part as float32. It is a slice for each dimension, without steps, or `...` for all.

        Raises InputError if the tensor is stored in another type than float32, float16, bfloat16 or float64. Integers
        and 8-bit numbers are quantised weights, whose scales are elsewhere.
        """
        sizes = self.shape[::-1] if self.transposed else self.shape
        wanted = part if isinstance(part, tuple) else tuple(slice(0, size) for size in self.shape)
        wanted = wanted[::-1] if self.transposed else wanted
        if wanted:
            start, stop, _ = wanted[0].indices(sizes[0])
            wanted = (slice(self.first_row + start, self.first_row + stop), *wanted[1:])
        with safe_open(self.file, framework="np") as opened:
            stored = opened.get_slice(self.name)
            if (kind := stored.get_dtype()) not in _READ_TYPES:
                raise InputError(
                    f"{self.file}: tensor {self.name} is stored as {kind}; weights must be {', '.join(_READ_TYPES)}: "
                    "quantised weights are not read; take the folder of the model before quantisation, or save it "
                    "again as float32 or bfloat16"
                )
            values = np.asarray(stored[wanted or ...], np.float32)
        return values.T if self.transposed else values


def open_tensors(folder: Path) -> Mapping[str, StoredTensor]:
    """Returns a folder's tensors by name. Raises InputError if it has no safetensors file, or a damaged one."""
    return {tensor.name: tensor for file in _weight_files(folder) for tensor in _tensors(file)}


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise InputError(f"{index}: not an index of safetensors files ({error}); copy the folder again") from error
        files = [folder / Path(name).name for name in names]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise InputError(f"{missing[0]}: no such file, though {index.name} names it; copy the folder again")
        return files
    others = sorted(file.name for file in folder.glob("*.bin")) + sorted(file.name for file in folder.glob("*.h5"))
    found = f"only {others[0]}, a format that is not read because it can hold code" if others else "none"
    raise InputError(
        f"{folder}: weights must be safetensors (model.safetensors), found {found}; save the model again as safetensors"
    )


def _tensors(file: Path) -> Iterator[StoredTensor]:
    try:
        with safe_open(file, framework="np") as opened:
            for name in opened.keys():  # noqa: SIM118 - the file is not a dictionary
                yield StoredTensor(file, name, tuple(opened.get_slice(name).get_shape()))
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{file}: not a safetensors file, or a damaged one ({error}); copy the folder again"
        ) from error
