"""Writes and reads vectors with their ids: EMBEDDINGS/embeddings-00000-of-00003.npy and ids-00000-of-00003.parquet.

A shard is finished if both its files exist. The ids file is renamed last and holds the SHA-256 of the vectors' file, so
that a damaged or foreign file is detected. The manifest is written first; it holds the numbers of rows and of rows in a
shard, and the type of the vectors (crops_jax.embeddings.stored_vectors describes how to read each type without this
library).
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from crops_jax import artifacts
from crops_jax.artifacts.arrays import write_array
from crops_jax.embeddings.stored_vectors import (
    TYPES,
    Shard,
    StoredVectors,
    VectorType,
    encoded,
    stored_dtype,
    stored_shape,
)
from crops_jax.errors import InputError

_DIGEST = b"embeddings_sha256"


class Layout(NamedTuple):
    """The number of rows, their division into shards, and their type. The manifest of EMBEDDINGS holds the layout."""

    rows: int
    dim: int
    shard_rows: int
    dtype: VectorType = "float32"

    @property
    def shards(self) -> int:
        """The number of shards."""
        return -(-self.rows // self.shard_rows)

    def bounds(self, shard: int) -> tuple[int, int]:
        """Returns the first row of a shard, and the row after its last."""
        return shard * self.shard_rows, min(self.rows, (shard + 1) * self.shard_rows)

    def file(self, kind: str, shard: int) -> str:
        """Returns the file name of a shard's vectors (kind "embeddings") or ids (kind "ids")."""
        return f"{kind}-{shard:05d}-of-{self.shards:05d}.{'npy' if kind == 'embeddings' else 'parquet'}"


class Embeddings(NamedTuple):
    """Vectors with their ids, usually mapped from a finished directory; row i of all shards in order belongs to ids[i].

    dtype: the type in which they are stored; the shards return float32.
    """

    ids: list[str]
    shards: tuple[Shard, ...]
    dtype: VectorType = "float32"

    @property
    def dim(self) -> int:
        """The number of components of a vector."""
        return self.shards[0].shape[1]

    def __repr__(self) -> str:
        return f"Embeddings({len(self.ids)} vectors of {self.dim} components, {self.dtype}, {len(self.shards)} shards)"

    def array(self) -> Float32[np.ndarray, "rows dim"]:
        """Returns all vectors: the mapped shard if it is the only one and float32, otherwise a copy in memory."""
        if len(self.shards) == 1:
            return self.shards[0][:]
        return np.concatenate([shard[:] for shard in self.shards])


def write_shard(
    directory: Path, layout: Layout, shard: int, *, ids: Sequence[str], vectors: Float32[np.ndarray, "rows dim"]
) -> None:
    """Writes one shard: first the vectors as layout.dtype, then the ids. Each file is written whole, then renamed.

    Raises ValueError if the numbers of rows, components or ids are not those of the shard.
    """
    first, last = layout.bounds(shard)
    if vectors.shape != (last - first, layout.dim) or len(ids) != last - first:
        raise ValueError(
            f"shard {shard} has {last - first} rows of {layout.dim}, found {vectors.shape}, {len(ids)} ids"
        )
    vectors_file = directory / layout.file("embeddings", shard)
    with artifacts.replaced_file(vectors_file) as temporary, open(temporary, "wb") as file:
        write_array(file, encoded(vectors, layout.dtype))
    schema = pa.schema([pa.field("id", pa.string(), nullable=False)], metadata={_DIGEST: _digest(vectors_file)})
    with artifacts.replaced_file(directory / layout.file("ids", shard)) as temporary:
        pq.write_table(pa.table([pa.array(ids, pa.string())], schema=schema), temporary, compression="zstd")


def shard_is_finished(directory: Path, layout: Layout, shard: int, *, ids: Sequence[str]) -> bool:
    """Returns whether a shard is complete and has these ids. It reads the whole shard."""
    try:
        _, stored_ids = _open_shard(directory, layout, shard)
        digest = pq.read_schema(directory / layout.file("ids", shard)).metadata[_DIGEST]
    except (InputError, KeyError, TypeError):
        return False
    return stored_ids == list(ids) and digest == _digest(directory / layout.file("embeddings", shard)).encode()


def open_embeddings(path: str | Path) -> Embeddings:
    """Returns the vectors and ids that launch.embed wrote.

    Raises InputError, naming the file, if the directory holds no embeddings, is not finished or is damaged.
    """
    path = Path(path)
    layout = read_layout(path)
    ids: list[str] = []
    shards = []
    for shard in range(layout.shards):
        vectors, shard_ids = _open_shard(path, layout, shard)
        shards.append(vectors)
        ids += shard_ids
    return Embeddings(ids, tuple(shards), layout.dtype)


def read_layout(path: Path) -> Layout:
    """Returns the layout in the manifest of EMBEDDINGS. Raises InputError if the manifest has none."""
    manifest = artifacts.read_manifest(path)
    if manifest["kind"] != "embeddings":
        raise InputError(f"{path} holds {manifest['kind']}, not embeddings; give the output of launch.embed")
    try:
        described = manifest["layout"]
        rows, dim, shard_rows = (int(described[name]) for name in ("rows", "dim", "shard_rows"))
        layout = Layout(rows, dim, shard_rows, described["dtype"])
        if not (0 <= layout.rows < 2**63 and 0 < layout.dim < 2**31 and 0 < layout.shard_rows < 2**63):
            raise ValueError(f"rows, dim and shard_rows are {tuple(layout)[:3]}")
        if layout.dtype not in TYPES:
            raise ValueError(f"dtype is {layout.dtype}")
        return layout
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(
            f"{path / artifacts.MANIFEST}: it has no layout of embeddings ({error}); embed again"
        ) from error


def iterate(embeddings: Embeddings) -> Iterator[tuple[list[str], Shard]]:
    """Yields the ids and the vectors of each shard."""
    start = 0
    for shard in embeddings.shards:
        yield embeddings.ids[start : start + len(shard)], shard
        start += len(shard)


def _open_shard(path: Path, layout: Layout, shard: int) -> tuple[Shard, list[str]]:
    first, last = layout.bounds(shard)
    vectors_file, ids_file = (path / layout.file(kind, shard) for kind in ("embeddings", "ids"))
    for file in (vectors_file, ids_file):
        if not file.is_file():
            raise InputError(f"{file}: the file is missing, so {path} is not finished; call launch.embed with it again")
    try:
        # np.load would accept archives too.
        vectors = np.lib.format.open_memmap(vectors_file, mode="r")
        ids = pq.read_table(ids_file, columns=["id"])["id"].to_pylist()
    except (
        Exception
    ) as error:  # NumPy's reader of headers raises many types of errors, even those of the tokenize module
        raise InputError(f"{path}: shard {shard} is damaged ({error}); call launch.embed with it again") from error
    kind, shape = stored_dtype(layout.dtype, layout.dim), stored_shape(layout.dtype, last - first, layout.dim)
    if vectors.shape != shape or vectors.dtype != kind or len(ids) != last - first:
        raise InputError(
            f"{vectors_file}: {vectors.dtype} of shape {vectors.shape} with {len(ids)} ids, expected "
            f"{kind} of {shape}; call launch.embed with it again"
        )
    if layout.dtype == "float32":
        return vectors, ids
    return StoredVectors(vectors, layout.dtype, dim=layout.dim), ids


def _digest(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
