"""Labels by query, and which of a query's documents get their tokens written."""

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
    """Labels, those of a query together, the highest level first.

    queries: distinct, in the order of their hashes, so that neighbours have nothing to do with each other.
    bounds: the rows of query i are bounds[i] to bounds[i + 1] - 1.
    doc_ids: distinct; documents: the place in doc_ids of every row.
    written: which documents come from a language model.
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

    Raises InputError where two documents have one hash, so that records could not tell them apart.
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
    """Returns the error for two documents with the same hash, which records use as identity; `pairs` is their
    number.
    """
    return InputError(
        f"column doc_id of the labels: {first!r} and {second!r} have the same 64-bit hash, by which records know "
        f"documents ({pairs} such {'pairs' if pairs > 1 else 'pair'}); give one of them another id"
    )


def dev_threshold(dev_fraction: float) -> int:
    """The hash below which a query is dev."""
    return int(dev_fraction * 2.0**64)


def choose_texts(
    groups: LabelGroups, has_text: Bool[np.ndarray, "rows"], *, documents_per_query: int, seed: int
) -> Bool[np.ndarray, "rows"]:
    """Returns a mask of the rows whose tokens are written: at most `documents_per_query` of each query.

    Positives (level 4 and 5) come first, higher levels before lower ones, by chance within a level; but a quarter of
    the places is kept for hard negatives, drawn by chance from all of them, as far as there are any. Places that one
    side leaves go to the other. Chance is a hash of (seed, query, document), whatever else the table holds.
    """
    queries, positive = groups.row_queries, groups.levels >= Level.POSITIVE
    positives = np.bincount(queries[has_text & positive], minlength=len(groups.queries))
    negatives = np.bincount(queries[has_text & ~positive], minlength=len(groups.queries))
    kept_free = np.minimum(negatives, documents_per_query // 4)
    positive_places = np.minimum(positives, documents_per_query - kept_free)
    negative_places = np.minimum(negatives, documents_per_query - positive_places)

    chance = _chance(groups, seed)
    shown_level = np.where(positive, groups.levels, 0)
    order = np.lexsort((chance, -shown_level, ~positive, ~has_text, queries))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - groups.bounds[queries[order]]
    among_negatives = place - positives[queries]
    fits = np.where(positive, place < positive_places[queries], among_negatives < negative_places[queries])
    return has_text & fits


def _chance(groups: LabelGroups, seed: int) -> UInt64[np.ndarray, "rows"]:
    [key] = sha256_hashes([f"documents {seed}"])
    documents = joined(groups.id_words)[groups.documents]
    return pair_hashes(groups.query_hashes[groups.row_queries], documents, key=key)


def _check_distinct(id_words: Int32[np.ndarray, "doc_ids 2"], doc_ids: pa.Array) -> None:
    hashes = np.ascontiguousarray(id_words).view(np.uint64).ravel()
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    if len(same):
        first, second = (doc_ids[int(order[same[0] + place])].as_py() for place in (0, 1))
        raise same_hash(first, second, pairs=len(same))


def _codes(column: pa.ChunkedArray) -> tuple[Int32[np.ndarray, "rows"], pa.Array]:
    """Places of the values among the distinct ones, which are sorted."""
    encoded = column.dictionary_encode().unify_dictionaries()
    if not encoded.num_chunks:
        return np.zeros(0, np.int32), pa.array([], column.type)
    dictionary = encoded.chunk(0).dictionary
    order = pc.sort_indices(dictionary)
    rank = np.empty(len(order), np.int32)
    rank[order.to_numpy()] = np.arange(len(order))
    return np.concatenate([rank[chunk.indices.to_numpy()] for chunk in encoded.chunks]), dictionary.take(order)
