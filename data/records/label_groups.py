"""Groups labels by query, and chooses the documents of a query whose tokens are written."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int8, Int32, Int64, UInt64

from crops_jax.errors import InputError
from crops_jax.hashing import document_id_words, joined, pair_hashes, sha256_hashes
from crops_jax.labels import Level


@dataclass(frozen=True, kw_only=True)
class LabelGroups:
    """The labels, with the rows of a query next to each other and its highest level first.

    queries: distinct queries in the order of their hashes, so that neighbours are unrelated.
    bounds: the rows of query i are bounds[i] to bounds[i + 1] - 1.
    doc_ids: distinct ids. documents: for each row, the index of its document in doc_ids.
    written: a mask of the documents that a language model wrote.
    """

    queries: list[str]
    query_hashes: UInt64[np.ndarray, "queries"]
    bounds: Int64[np.ndarray, "queries+1"]
    doc_ids: pa.Array
    id_words: Int32[np.ndarray, "doc_ids 2"]
    written: Bool[np.ndarray, "doc_ids"]
    documents: Int32[np.ndarray, "rows"]
    levels: Int8[np.ndarray, "rows"]

    @property
    def row_queries(self) -> Int64[np.ndarray, "rows"]:
        return np.repeat(np.arange(len(self.queries)), np.diff(self.bounds))


def group_labels(labels: pa.Table) -> LabelGroups:
    """Groups a label table (query, doc_id, level, written); the order of its rows does not matter.

    Raises InputError if two documents have the same hash, because records could not distinguish them.
    """
    query_codes, queries = _codes(labels.column("query"))
    documents, doc_ids = _codes(labels.column("doc_id"))
    hashes = sha256_hashes(queries.to_pylist())
    order = np.argsort(hashes, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    ranks = rank[query_codes]
    levels = labels.column("level").to_numpy().astype(np.int8)
    rows = np.lexsort((documents, -levels, ranks))
    counts = np.bincount(ranks, minlength=len(order))
    id_words = document_id_words(doc_ids.to_pylist())
    _check_distinct(id_words, doc_ids)
    written = np.zeros(len(doc_ids), bool)
    written[documents[labels.column("written").to_numpy()]] = True
    return LabelGroups(
        queries=queries.take(pa.array(order)).to_pylist(),
        query_hashes=hashes[order],
        bounds=np.concatenate([[0], np.cumsum(counts)]),
        doc_ids=doc_ids,
        id_words=id_words,
        written=written,
        documents=documents[rows],
        levels=levels[rows],
    )


def same_hash(first: str, second: str, *, pairs: int) -> InputError:
    """Returns the error for two documents with the same hash, by which records identify documents.

    Args:
      first, second: the ids of the two documents.
      pairs: the number of pairs of documents with the same hash.
    """
    return InputError(
        f"column doc_id of the labels: {first!r} and {second!r} have the same 64-bit hash, by which records identify "
        f"documents ({pairs} such {'pairs' if pairs > 1 else 'pair'}); change the id of one of them"
    )


def dev_threshold(dev_fraction: float) -> int:
    """Returns the hash below which a query is in the split dev."""
    return int(dev_fraction * 2.0**64)


def choose_texts(
    groups: LabelGroups, has_text: Bool[np.ndarray, "rows"], *, documents_per_query: int, seed: int
) -> Bool[np.ndarray, "rows"]:
    """Returns a mask of the rows whose tokens are written: at most `documents_per_query` of each query.

    Positives (levels 4 and 5) come first, higher levels before lower levels, in random order within a level. A quarter
    of the slots is reserved for hard negatives, which are drawn at random from all hard negatives of the query. Slots
    that positives or negatives do not fill are filled with the other kind. The random order is a hash of (seed, query,
    document), so it does not depend on other rows of the table.
    """
    queries, positive = groups.row_queries, groups.levels >= Level.POSITIVE
    positives = np.bincount(queries[has_text & positive], minlength=len(groups.queries))
    negatives = np.bincount(queries[has_text & ~positive], minlength=len(groups.queries))
    reserved = np.minimum(negatives, documents_per_query // 4)
    positive_slots = np.minimum(positives, documents_per_query - reserved)
    negative_slots = np.minimum(negatives, documents_per_query - positive_slots)

    hashes = _choice_hashes(groups, seed)
    shown_level = np.where(positive, groups.levels, 0)
    order = np.lexsort((hashes, -shown_level, ~positive, ~has_text, queries))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - groups.bounds[queries[order]]
    negative_rank = rank - positives[queries]
    fits = np.where(positive, rank < positive_slots[queries], negative_rank < negative_slots[queries])
    return has_text & fits


def _choice_hashes(groups: LabelGroups, seed: int) -> UInt64[np.ndarray, "rows"]:
    [key] = sha256_hashes([f"documents {seed}"])
    documents = joined(groups.id_words)[groups.documents]
    return pair_hashes(groups.query_hashes[groups.row_queries], documents, key=key)


def _check_distinct(id_words: Int32[np.ndarray, "doc_ids 2"], doc_ids: pa.Array) -> None:
    hashes = np.ascontiguousarray(id_words).view(np.uint64).ravel()
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    if len(same):
        first, second = (doc_ids[int(order[same[0] + offset])].as_py() for offset in (0, 1))
        raise same_hash(first, second, pairs=len(same))


def _codes(column: pa.ChunkedArray) -> tuple[Int32[np.ndarray, "rows"], pa.Array]:
    """Returns the index of each value among the distinct values, and the sorted distinct values."""
    encoded = column.dictionary_encode().unify_dictionaries()
    if not encoded.num_chunks:
        return np.zeros(0, np.int32), pa.array([], column.type)
    dictionary = encoded.chunk(0).dictionary
    order = pc.sort_indices(dictionary)
    rank = np.empty(len(order), np.int32)
    rank[order.to_numpy()] = np.arange(len(order))
    return np.concatenate([rank[chunk.indices.to_numpy()] for chunk in encoded.chunks]), dictionary.take(order)
