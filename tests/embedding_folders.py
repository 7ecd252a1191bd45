"""Folders of embeddings that tests write without an encoder."""

from pathlib import Path

import numpy as np

from crops_jax import artifacts
from crops_jax.embeddings import Layout, write_shard


def write_embeddings(
    path: Path,
    ids,
    vectors,
    *,
    tower: str,
    shard_rows: int = 5,
    encoder: str = "e0",
    normalise=True,
    inputs=None,
    dtype="float32",
):
    """What launch.embed writes, manifest included."""
    vectors = np.asarray(vectors, np.float32)
    if normalise:
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    layout = Layout(rows=len(ids), dim=vectors.shape[1], shard_rows=shard_rows, dtype=dtype)
    path.mkdir(parents=True)
    manifest = artifacts.new_manifest(
        program="launch.embed",
        kind="embeddings",
        arguments={"tower": tower},
        inputs=inputs or {},
        layout=layout._asdict(),
        encoder=encoder,
    )
    artifacts.write_manifest(path, manifest)
    for shard in range(layout.shards):
        first, last = layout.bounds(shard)
        write_shard(path, layout, shard, ids=ids[first:last], vectors=vectors[first:last])
    return path


def at_cosines(*cosines: float) -> np.ndarray:
    """Unit vectors of two numbers with these cosines to (1, 0)."""
    c = np.array(cosines)
    return np.stack([c, np.sqrt(1 - c**2)], axis=1).astype(np.float32)
