"""Label levels of HLA and the label matrix of a batch, never written out.

Levels: CroPS (arXiv 2511.15443), hierarchical label assignment.
"""

import enum
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int, Int32

from crops_jax.hashing import token_words

IGNORE = -1
"""Level of a pair that is neither anchor nor negative of anything."""


class Level(enum.IntEnum):
    """The level of a pair: how strongly a document answers a query, by the stage of the log at which it was seen."""

    IN_BATCH_NEGATIVE = 0
    FILTERED_BEFORE_RANKING = 1
    RANKED_NOT_SHOWN = 2
    SHOWN_NOT_CLICKED = 3
    POSITIVE = 4
    QUERY_LEVEL_POSITIVE = 5


class SparseLabels(NamedTuple):
    """Labels of [queries, documents] by their few entries other than level 0.

    doc_index: the column of each entry; -1 is padding. A column occurs at most once in a row.
    level: its level, 1 to 5; -1 means "ignore this pair". Every column not named is level 0.
    """

    doc_index: Int32[jax.Array, "queries k"]
    level: Int32[jax.Array, "queries k"]


class LookupCounters(NamedTuple):
    """The counters of the label lookup of one global batch; int32 scalars.

    false_negatives_avoided: (query, document) pairs that are labelled for the query but came into the batch with
      another query's record only, so that they would have been level 0.
    duplicate_documents: columns that are second copies of a document.
    label_overflow: labelled pairs beyond labels_per_query, which fell to level 0.
    """

    false_negatives_avoided: Int32[jax.Array, ""]
    duplicate_documents: Int32[jax.Array, ""]
    label_overflow: Int32[jax.Array, ""]


def sparse_labels(
    labelled_ids: Int32[jax.Array, "queries labelled 2"],
    labelled_levels: Int32[jax.Array, "queries labelled"],
    document_ids: Int32[jax.Array, "documents 2"],
    *,
    labels_per_query: int,
) -> tuple[SparseLabels, Bool[jax.Array, "documents"], LookupCounters]:
    """Labels of every (query, document) pair of a global batch, looked up by document id.

    Each query brings the ids of all its labelled documents; they are searched (binary, lexicographic in the two
    words) among the ids of the batch's documents, whichever query's record brought those. Runs inside jit.

    Args:
      labelled_ids: ids of the labelled documents of each query, each at most once a query; (0, 0) is padding.
      labelled_levels: their levels, 1 to 5, or -1 for "ignore"; 0 is as good as not labelled.
      document_ids: ids of the batch's documents, (0, 0) where a column is empty. Row q of the batch brought columns
        q * n to (q + 1) * n - 1, n = documents / queries, which only the counters use.
      labels_per_query: most entries of a row. Where more match, the highest levels keep their places.

    Returns:
      The labels, [queries, min(labels_per_query, labelled)]; the mask of columns that are real documents: False for
      empty columns and for second copies of a document; and counters.
    """
    queries, labelled, _ = labelled_ids.shape
    documents = document_ids.shape[0]
    order = _lexicographic_order(document_ids)
    ranked = document_ids[order]
    # The order is stable, so the first of a run of equal ids is the leftmost column.
    first_of_run = jnp.concatenate([jnp.ones(1, bool), (ranked[1:] != ranked[:-1]).any(axis=1)])
    empty = (document_ids == 0).all(axis=1)
    first_copy = jnp.zeros(documents, bool).at[order].set(first_of_run)
    doc_mask = first_copy & ~empty

    place = _lower_bound(ranked, labelled_ids.reshape(-1, 2)).reshape(queries, labelled)
    inside = jnp.minimum(place, documents - 1)
    matched = (ranked[inside] == labelled_ids).all(axis=2) & (labelled_ids != 0).any(axis=2) & (labelled_levels != 0)
    column = order[inside]

    # Padding sorts behind every level, "ignore" behind every positive one; top_k is stable.
    lowest = jnp.iinfo(jnp.int32).min
    kept_level, kept = jax.lax.top_k(jnp.where(matched, labelled_levels, lowest), min(labels_per_query, labelled))
    is_entry = kept_level != lowest
    labels = SparseLabels(
        doc_index=jnp.where(is_entry, jnp.take_along_axis(column, kept, axis=1), -1).astype(jnp.int32),
        level=jnp.where(is_entry, kept_level, 0).astype(jnp.int32),
    )
    counters = LookupCounters(
        false_negatives_avoided=_count(matched & ~_own(labelled_ids, document_ids.reshape(queries, -1, 2))),
        duplicate_documents=_count(~first_copy & ~empty),
        label_overflow=_count(matched) - _count(is_entry),
    )
    return labels, doc_mask, counters


def repeated_queries(query_tokens: Int32[jax.Array, "queries tokens"]) -> Bool[jax.Array, "queries"]:
    """True for every query of a global batch that an earlier row holds already, token by token.

    Such a row is merged into the earlier one: its weight in the loss is 0, while its documents stay in the batch,
    where the lookup gives them their levels for the earlier row.
    """
    hashes = token_words(query_tokens)
    order = _lexicographic_order(hashes)
    ranked = hashes[order]
    repeated = jnp.concatenate([jnp.zeros(1, bool), (ranked[1:] == ranked[:-1]).all(axis=1)])
    return jnp.zeros(query_tokens.shape[0], bool).at[order].set(repeated)


def dense_labels(labels: SparseLabels, documents: int) -> Int32[jax.Array, "queries documents"]:
    """The label matrix written out: level 0 wherever `labels` names no column."""
    queries = labels.doc_index.shape[0]
    column = jnp.where(labels.doc_index < 0, documents, labels.doc_index)
    rows = jnp.arange(queries)[:, None]
    return jnp.zeros((queries, documents), jnp.int32).at[rows, column].set(labels.level, mode="drop")


def _lexicographic_order(words: Int32[jax.Array, "rows 2"]) -> Int[jax.Array, "rows"]:
    return jnp.lexsort((words[:, 1], words[:, 0]))


def _lower_bound(ranked: Int32[jax.Array, "rows 2"], wanted: Int32[jax.Array, "n 2"]) -> Int32[jax.Array, "n"]:
    """The first row of `ranked` (sorted) that is not below each of `wanted`; the number of rows when all are."""

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) // 2
        pivot = ranked[jnp.minimum(middle, ranked.shape[0] - 1)]
        below = (pivot[:, 0] < wanted[:, 0]) | ((pivot[:, 0] == wanted[:, 0]) & (pivot[:, 1] < wanted[:, 1]))
        open_ = low < high
        return jnp.where(open_ & below, middle + 1, low), jnp.where(open_ & ~below, middle, high)

    low = jnp.zeros(wanted.shape[0], jnp.int32)
    halvings = math.ceil(math.log2(ranked.shape[0] + 1))
    return jax.lax.fori_loop(0, halvings, halve, (low, jnp.full_like(low, ranked.shape[0])))[0]


def _own(
    labelled_ids: Int32[jax.Array, "queries labelled 2"], own_ids: Int32[jax.Array, "queries own 2"]
) -> Bool[jax.Array, "queries labelled"]:
    """Returns whether the query's own record brought the labelled document into the batch."""
    equal = (labelled_ids[:, :, None, 0] == own_ids[:, None, :, 0]) & (
        labelled_ids[:, :, None, 1] == own_ids[:, None, :, 1]
    )
    return equal.any(axis=2)


def _count(mask: jax.Array) -> Int32[jax.Array, ""]:
    return mask.sum(dtype=jnp.int32)
