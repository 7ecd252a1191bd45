"""Vectors with their ids on disk: EMBEDDINGS/embeddings-00000-of-00003.npy and ids-00000-of-00003.parquet.

A shard is finished when both its files are there; the ids file is renamed into place last and carries the SHA-256 of
the vectors' file, so that a torn or foreign one is seen. The manifest is written first and says how many rows and
shards there will be, and the type of the vectors (crops_jax.embeddings.stored_vectors says how each is read without
this library).
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
    """How many rows there are, how they are cut and stored; the manifest of EMBEDDINGS keeps it."""

    rows: int
    dim: int
    shard_rows: int
    dtype: VectorType = "float32"

    @property
    def shards(self) -> int:
        return -(-self.rows // self.shard_rows)

    def bounds(self, shard: int) -> tuple[int, int]:
        """First row of a shard, and the one after its last."""
        return shard * self.shard_rows, min(self.rows, (shard + 1) * self.shard_rows)

    def file(self, kind: str, shard: int) -> str:
        """kind: "embeddings" or "ids"."""
        return f"{kind}-{shard:05d}-of-{self.shards:05d}.{'npy' if kind == 'embeddings' else 'parquet'}"


class Embeddings(NamedTuple):
    """Vectors, as a rule mapped from a finished directory; row i of all shards in order belongs to ids[i].

    dtype: as what they are stored; shards give them as float32.
    """

    ids: list[str]
    shards: tuple[Shard, ...]
    dtype: VectorType = "float32"

    @property
    def dim(self) -> int:
        return self.shards[0].shape[1]

    def array(self) -> Float32[np.ndarray, "rows dim"]:
        """All vectors: the shard itself when there is one of float32, in memory otherwise."""
        if len(self.shards) == 1:
            return self.shards[0][:]
        return np.concatenate([shard[:] for shard in self.shards])


def write_shard(
    directory: Path, layout: Layout, shard: int, *, ids: Sequence[str], vectors: Float32[np.ndarray, "rows dim"]
) -> None:
    """Writes one shard: first the vectors, as layout.dtype, then the ids, each under a temporary name that is renamed.

    Raises ValueError where they are not those of the shard.
    """
    first, last = layout.bounds(shard)
    if vectors.shape != (last - first, layout.dim) or len(ids) != last - first:
        raise ValueError(
            f"shard {shard} has {last - first} rows of {layout.dim}, found {vectors.shape}, {len(ids)} ids"
        )
    vectors_file = directory / layout.file("embeddings", shard)
    with artifacts.replaced_file(vectors_file) as temporary, open(temporary, "wb") as file:
        # Not np.save, which hides why a write ended early, such as a full disk.
        rows = encoded(vectors, layout.dtype)
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(rows))
        file.write(rows.data)
    schema = pa.schema([pa.field("id", pa.string(), nullable=False)], metadata={_DIGEST: _digest(vectors_file)})
    with artifacts.replaced_file(directory / layout.file("ids", shard)) as temporary:
        pq.write_table(pa.table([pa.array(ids, pa.string())], schema=schema), temporary, compression="zstd")


def shard_is_finished(directory: Path, layout: Layout, shard: int, *, ids: Sequence[str]) -> bool:
    """Whether a shard is there, whole, and of these ids. Reads all of it."""
    try:
        _, found = _open_shard(directory, layout, shard)
        digest = pq.read_schema(directory / layout.file("ids", shard)).metadata[_DIGEST]
    except (InputError, KeyError, TypeError):
        return False
    return found == list(ids) and digest == _digest(directory / layout.file("embeddings", shard)).encode()


def open_embeddings(path: str | Path) -> Embeddings:
    """The vectors and ids that launch.embed wrote.

    Raises InputError, naming the file, when the directory is not one of embeddings, is not finished or is damaged.
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
    """The layout that the manifest of EMBEDDINGS promises. Raises InputError."""
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
            f"{path / artifacts.MANIFEST}: no layout of embeddings in it ({error}); embed again"
        ) from error


def iterate(embeddings: Embeddings) -> Iterator[tuple[list[str], Shard]]:
    """Ids and vectors shard by shard."""
    start = 0
    for shard in embeddings.shards:
        yield embeddings.ids[start : start + len(shard)], shard
        start += len(shard)


def _open_shard(path: Path, layout: Layout, shard: int) -> tuple[Shard, list[str]]:
    first, last = layout.bounds(shard)
    vectors_file, ids_file = (path / layout.file(kind, shard) for kind in ("embeddings", "ids"))
    for file in (vectors_file, ids_file):
        if not file.is_file():
            raise InputError(f"{file}: not there, so {path} is not finished; call launch.embed with it again")
    try:
        # Not np.load, which takes archives too.
        vectors = np.lib.format.open_memmap(vectors_file, mode="r")
        ids = pq.read_table(ids_file, columns=["id"])["id"].to_pylist()
    except Exception as error:  # NumPy's reader of headers raises anything, errors of the tokenize module included
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
