"""Encodes texts as vectors, and stores vectors with their ids on disk."""

from crops_jax.embeddings.shards import (
    Embeddings,
    Layout,
    iterate,
    open_embeddings,
    read_layout,
    shard_is_finished,
    write_shard,
)

__all__ = [
    "Embeddings",
    "Layout",
    "iterate",
    "open_embeddings",
    "read_layout",
    "shard_is_finished",
    "write_shard",
]
