"""The label matrix of a batch in a sparse form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Int32


class SparseLabels(NamedTuple):
    """The label matrix [queries, documents], stored as its few entries whose level is not 0.

    doc_index: the column of each entry; -1 is padding. A column occurs at most once in a row.
    level: the level of each entry, 1 to 5; -1 means "ignore this pair". Every column without an entry has level 0.
    """

    doc_index: Int32[jax.Array, "queries k"]
    level: Int32[jax.Array, "queries k"]


def dense_labels(labels: SparseLabels, documents: int) -> Int32[jax.Array, "queries documents"]:
    """Returns the full label matrix; columns without an entry in `labels` have level 0."""
    queries = labels.doc_index.shape[0]
    column = jnp.where(labels.doc_index < 0, documents, labels.doc_index)
    rows = jnp.arange(queries)[:, None]
    return jnp.zeros((queries, documents), jnp.int32).at[rows, column].set(labels.level, mode="drop")
