"""The lookup of the labels of a global batch by document id, inside a compiled step."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float32, Int, Int32

from crops_jax.devices.hashing import token_words
from crops_jax.labels.matrix import SparseLabels


class LookupCounters(NamedTuple):
    """The counters of the label lookup of one global batch; int32 scalars.

    false_negatives_avoided: the number of (query, document) pairs that are labelled for the query although only the
      record of another query brought the document into the batch. Without the lookup they would have level 0.
    duplicate_documents: the number of columns that are second copies of a document.
    label_overflow: the number of labelled pairs beyond labels_per_query, which get level 0.
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
    """Returns the labels of every (query, document) pair of a global batch, looked up by document id.

    Each query has the ids of all its labelled documents. A binary search, lexicographic in the two words, looks these
    ids up among the ids of all documents of the batch, including those that records of other queries brought into it.
    The function runs inside jit.

    Args:
      labelled_ids: the ids of the labelled documents of each query, each at most once per query; (0, 0) is padding.
      labelled_levels: the levels of these documents, 1 to 5, or -1 for "ignore"; 0 has the same effect as no label.
      document_ids: the ids of the batch's documents; (0, 0) marks an empty column. Columns q * n to (q + 1) * n - 1,
        with n = documents / queries, come from the record of row q; only the counters use this.
      labels_per_query: the maximum number of entries in a row. If more labels match, those of the highest levels are
        kept.

    Returns:
      The labels, [queries, min(labels_per_query, labelled)]; the mask of the columns that are real documents, which is
      False for empty columns and for second copies of a document; and the counters.
    """
    return _looked_up(labelled_ids, labelled_levels, document_ids, labels_per_query=labels_per_query)[:3]


def scored_sparse_labels(
    labelled_ids: Int32[jax.Array, "queries labelled 2"],
    labelled_levels: Int32[jax.Array, "queries labelled"],
    labelled_scores: Float32[jax.Array, "queries labelled"],
    document_ids: Int32[jax.Array, "documents 2"],
    *,
    labels_per_query: int,
) -> tuple[SparseLabels, Bool[jax.Array, "documents"], LookupCounters, Float32[jax.Array, "queries k"]]:
    """Returns what `sparse_labels` returns for the same arguments, and the score of each entry of the labels.

    Args:
      labelled_scores: a score of each labelled document; NaN for a document without one. The entries of such documents,
        and entries of padding, have the score NaN.
      others: the other arguments are those of `sparse_labels`.
    """
    labels, doc_mask, counters, kept = _looked_up(
        labelled_ids, labelled_levels, document_ids, labels_per_query=labels_per_query
    )
    scores = jnp.take_along_axis(labelled_scores, kept, axis=1)
    return labels, doc_mask, counters, jnp.where(labels.doc_index >= 0, scores, jnp.nan)


def _looked_up(
    labelled_ids: Int32[jax.Array, "queries labelled 2"],
    labelled_levels: Int32[jax.Array, "queries labelled"],
    document_ids: Int32[jax.Array, "documents 2"],
    *,
    labels_per_query: int,
) -> tuple[SparseLabels, Bool[jax.Array, "documents"], LookupCounters, Int32[jax.Array, "queries k"]]:
    """Returns what `sparse_labels` returns, and for each entry the number of its labelled document."""
    queries, labelled, _ = labelled_ids.shape
    documents = document_ids.shape[0]
    order = _lexicographic_order(document_ids)
    ranked = document_ids[order]
    # The sort is stable, so the first of a run of equal ids is the leftmost column.
    first_of_run = jnp.concatenate([jnp.ones(1, bool), (ranked[1:] != ranked[:-1]).any(axis=1)])
    empty = (document_ids == 0).all(axis=1)
    first_copy = jnp.zeros(documents, bool).at[order].set(first_of_run)
    doc_mask = first_copy & ~empty

    rank = _lower_bound(ranked, labelled_ids.reshape(-1, 2)).reshape(queries, labelled)
    rank = jnp.minimum(rank, documents - 1)
    matched = (ranked[rank] == labelled_ids).all(axis=2) & (labelled_ids != 0).any(axis=2) & (labelled_levels != 0)
    column = order[rank]

    # top_k is stable. It sorts padding after every level, and "ignore" after the levels 1 to 5.
    lowest = jnp.iinfo(jnp.int32).min
    kept_level, kept = jax.lax.top_k(jnp.where(matched, labelled_levels, lowest), min(labels_per_query, labelled))
    is_entry = kept_level != lowest
    labels = SparseLabels(
        doc_index=jnp.where(is_entry, jnp.take_along_axis(column, kept, axis=1), -1).astype(jnp.int32),
        level=jnp.where(is_entry, kept_level, 0).astype(jnp.int32),
    )
    counters = LookupCounters(
        false_negatives_avoided=_count(
            matched & ~_is_in_own_record(labelled_ids, document_ids.reshape(queries, -1, 2))
        ),
        duplicate_documents=_count(~first_copy & ~empty),
        label_overflow=_count(matched) - _count(is_entry),
    )
    return labels, doc_mask, counters, kept


def repeated_queries(query_tokens: Int32[jax.Array, "queries tokens"]) -> Bool[jax.Array, "queries"]:
    """Returns the mask of the queries of a global batch whose tokens are equal to those of an earlier row.

    Such a row is merged into the earlier one: its weight in the loss is 0, but its documents stay in the batch, and the
    lookup assigns them their levels for the earlier row.
    """
    hashes = token_words(query_tokens)
    order = _lexicographic_order(hashes)
    ranked = hashes[order]
    repeated = jnp.concatenate([jnp.zeros(1, bool), (ranked[1:] == ranked[:-1]).all(axis=1)])
    return jnp.zeros(query_tokens.shape[0], bool).at[order].set(repeated)


def _lexicographic_order(words: Int32[jax.Array, "rows 2"]) -> Int[jax.Array, "rows"]:
    return jnp.lexsort((words[:, 1], words[:, 0]))


def _lower_bound(ranked: Int32[jax.Array, "rows 2"], keys: Int32[jax.Array, "n 2"]) -> Int32[jax.Array, "n"]:
    """Returns, for each key, the first row of `ranked` that is not less than the key.

    `ranked` is sorted. If all its rows are less than a key, the result for this key is the number of rows.
    """

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) // 2
        pivot = ranked[jnp.minimum(middle, ranked.shape[0] - 1)]
        below = (pivot[:, 0] < keys[:, 0]) | ((pivot[:, 0] == keys[:, 0]) & (pivot[:, 1] < keys[:, 1]))
        unfinished = low < high
        return jnp.where(unfinished & below, middle + 1, low), jnp.where(unfinished & ~below, middle, high)

    low = jnp.zeros(keys.shape[0], jnp.int32)
    halvings = math.ceil(math.log2(ranked.shape[0] + 1))
    return jax.lax.fori_loop(0, halvings, halve, (low, jnp.full_like(low, ranked.shape[0])))[0]


def _is_in_own_record(
    labelled_ids: Int32[jax.Array, "queries labelled 2"], own_ids: Int32[jax.Array, "queries own 2"]
) -> Bool[jax.Array, "queries labelled"]:
    """Returns the mask of the labelled documents that the query's own record brought into the batch."""
    equal = (labelled_ids[:, :, None, 0] == own_ids[:, None, :, 0]) & (
        labelled_ids[:, :, None, 1] == own_ids[:, None, :, 1]
    )
    return equal.any(axis=2)


def _count(mask: jax.Array) -> Int32[jax.Array, ""]:
    return mask.sum(dtype=jnp.int32)
