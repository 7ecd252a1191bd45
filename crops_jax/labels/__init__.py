"""The levels of hierarchical label assignment (HLA), and the label matrix of a batch in a sparse form.

The levels are loaded without JAX, since programs that read label tables need no JAX.
"""

from typing import TYPE_CHECKING

from crops_jax.labels.levels import ANCHOR_LEVELS, ANCHORS, IGNORE, RECALL, SCORE_GAP, Level
from crops_jax.lazy_exports import loaded_on_use

if TYPE_CHECKING:
    from crops_jax.labels.lookup import LookupCounters, repeated_queries, scored_sparse_labels, sparse_labels
    from crops_jax.labels.matrix import SparseLabels, dense_labels

__all__ = [
    "ANCHORS",
    "ANCHOR_LEVELS",
    "IGNORE",
    "RECALL",
    "SCORE_GAP",
    "Level",
    "LookupCounters",
    "SparseLabels",
    "dense_labels",
    "repeated_queries",
    "scored_sparse_labels",
    "sparse_labels",
]

__getattr__ = loaded_on_use(
    __name__,
    {
        "lookup": ("LookupCounters", "repeated_queries", "scored_sparse_labels", "sparse_labels"),
        "matrix": ("SparseLabels", "dense_labels"),
    },
)
