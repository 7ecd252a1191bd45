"""Ranks embedded documents for queries, and selects negatives from the rankings."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float32, Float64, Int, Int32, Int64, UInt64

from crops_jax.embeddings import Embeddings
from crops_jax.errors import InputError
from crops_jax.hashing import id_hashes
from crops_jax.retrieval.exact import inner_products, local_mesh
from crops_jax.retrieval.hard_negatives import Chosen, Labelled, Selection, choose_negatives, rounded, score_limits
from crops_jax.retrieval.mapped import mapped_top_k, take_rows
from crops_jax.retrieval.scann_index import build_index

# The number of positions of rankings that are in memory at once: 128 MiB.
_POSITIONS_IN_MEMORY = 1 << 24
# The number of queries whose negatives are selected together, and of pairs that are scored together.
_CHOSEN_AT_ONCE = 4096
_PAIRS_AT_ONCE = 65_536

Ranking = tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]]


class Block(NamedTuple):
    """A block of queries: their vectors, their hashes and their labelled documents."""

    vectors: Float32[np.ndarray, "queries dim"]
    hashes: UInt64[np.ndarray, "queries"]
    labelled: Labelled


class MinedPairs(NamedTuple):
    """The mined pairs of some queries of a block. new is False for pairs that already have a negative label."""

    query: Int64[np.ndarray, "pairs"]
    document: Int64[np.ndarray, "pairs"]
    score: Float64[np.ndarray, "pairs"]
    new: Bool[np.ndarray, "pairs"]


class NegativesCorpus:
    """Embedded documents that are searched exactly or with ScaNN, and the order that breaks ties of scores."""

    def __init__(
        self,
        documents: Embeddings,
        *,
        search: Literal["exact", "scann"] = "exact",
        equals: Int64[np.ndarray, "documents"] | None = None,
        sample_queries: Float32[np.ndarray, "sample dim"] | None = None,
        depth: int = 100,
        block_rows: int | None = None,
    ):
        """
        Args:
          documents: the memory-mapped unit vectors, of any stored type.
          search: the search method. ScaNN holds all vectors in memory and misses some neighbours.
          equals: a number for each document, the same for documents that are treated as equal
            (hard_negatives.choose_negatives).
          sample_queries, depth: the queries and the depth of the rankings for which ScaNN is tuned.
          block_rows: the number of documents that are in memory at once in exact search.

        Raises:
          InputError: `search` is "scann" and ScaNN is not installed.
        """
        self.shards, self._dtype = documents.shards, documents.dtype
        self.count = len(documents.ids)
        self.hashes = id_hashes(documents.ids)
        self.equals = equals
        self.sizes = None if equals is None else np.bincount(equals, minlength=self.count)
        # Ties are broken by id, so that the order of the table does not matter.
        self.order = np.empty(self.count, np.int32)
        self.order[pc.sort_indices(pa.array(documents.ids)).to_numpy()] = np.arange(self.count, dtype=np.int32)
        self._block_rows = block_rows
        self._mesh = local_mesh()
        self._index = None
        if search == "scann":
            self._index = build_index(documents.array(), k=min(depth, self.count), sample_queries=sample_queries)
            if self._index.settings["kind"] == "exact":
                raise InputError(
                    f"--search scann: {self._index.settings['reason']}; install scann, or leave --search out"
                )

    @property
    def settings(self) -> dict:
        """The settings of the search and the type of the stored vectors, for the outcome line."""
        settings = {"kind": "exact"} if self._index is None else self._index.settings
        return {**settings, "document_vectors": self._dtype}

    def search(
        self, queries: Float32[np.ndarray, "queries dim"], k: int, *, progress: Callable[[int], object]
    ) -> Ranking:
        """Returns the k nearest documents of each query, best first. The index is -1 where ScaNN found fewer than k."""
        if self._index is None:
            return mapped_top_k(
                queries,
                self.shards,
                k,
                order=self.order,
                mesh=self._mesh,
                block_rows=self._block_rows,
                progress=progress,
            )
        scores, indices = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int32)
        for start in range(0, len(queries), _CHOSEN_AT_ONCE):
            rows = slice(start, start + _CHOSEN_AT_ONCE)
            approximate = self._index.search(queries[rows], k)[1]
            scores[rows], indices[rows] = self._exactly_scored(queries[rows], approximate)
            progress(len(approximate) * self.count)
        return scores, indices

    def _exactly_scored(
        self, queries: Float32[np.ndarray, "queries dim"], indices: Int32[np.ndarray, "queries k"]
    ) -> Ranking:
        """Returns the documents that ScaNN found, with the scores and in the order of exact search."""
        query, column = np.nonzero(indices >= 0)
        scores = np.full(indices.shape, -np.inf, np.float32)
        scores[query, column] = self.pair_scores(queries, query, indices[query, column])
        best = np.lexsort((self.order[indices], -scores))
        return np.take_along_axis(scores, best, 1), np.take_along_axis(indices, best, 1)

    def pair_scores(
        self,
        queries: Float32[np.ndarray, "queries dim"],
        query: Int[np.ndarray, "pairs"],
        document: Int[np.ndarray, "pairs"],
    ) -> Float32[np.ndarray, "pairs"]:
        """Returns the cosines of pairs, bit-equal to those of exact search."""
        scores = np.empty(len(query), np.float32)
        for start in range(0, len(query), _PAIRS_AT_ONCE):
            some = slice(start, start + _PAIRS_AT_ONCE)
            scores[some] = inner_products(queries[query[some]], take_rows(self.shards, document[some]))
        return scores


class Tally:
    """Counts and scores of the mined pairs of all blocks, for the outcome line."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._counts = dict.fromkeys(
            ("positives_passed_over", "too_near_a_positive", "queries_with_fewer", "queries_with_none"), 0
        )
        self._without_scored_positive = 0
        self._scores = {"positives": _Summary(), "mined": _Summary()}

    def add_positives(self, scores: Float64[np.ndarray, "positives"], limits: Float64[np.ndarray, "queries"]) -> None:
        self._scores["positives"].add(scores)
        self._without_scored_positive += int(np.isneginf(limits).sum())

    def add(self, chosen: Chosen, scores: Float64[np.ndarray, "queries k"]) -> None:
        taken = chosen.new.sum(axis=1)
        self._counts["positives_passed_over"] += int(chosen.positive.sum())
        self._counts["too_near_a_positive"] += int(chosen.beyond_margin.sum())
        self._counts["queries_with_fewer"] += int((taken < self._selection.per_query).sum())
        self._counts["queries_with_none"] += int((taken == 0).sum())
        self._scores["mined"].add(scores[chosen.new])

    def outcome(self) -> dict:
        """Returns the counts and the summaries of scores.

        positives_passed_over: known positives in the rankings. too_near_a_positive: pairs that the margin excluded.
        queries_with_fewer: queries that got fewer than per_query negatives; queries_with_none (no negative) is
        included. queries_without_scored_positive: queries without a scored positive, for which no margin can be
        measured; they get no negatives.
        """
        margin = {"queries_without_scored_positive": self._without_scored_positive}
        scores = {name: summary.outcome() for name, summary in self._scores.items()}
        return {**self._counts, **(margin if self._selection.has_margin else {}), "scores": scores}


class _Summary:
    def __init__(self) -> None:
        self._count, self._sum, self._least, self._greatest = 0, 0.0, np.inf, -np.inf

    def add(self, scores: Float64[np.ndarray, "some"]) -> None:
        if scores.size:
            self._count += scores.size
            self._sum += float(scores.sum())
            self._least = min(self._least, float(scores.min()))
            self._greatest = max(self._greatest, float(scores.max()))

    def outcome(self) -> dict[str, float] | None:
        if not self._count:
            return None
        return {"mean": round(self._sum / self._count, 4), "least": self._least, "greatest": self._greatest}


def mine_block(
    block: Block, corpus: NegativesCorpus, selection: Selection, tally: Tally, *, progress: Callable[[int], object]
) -> Iterator[MinedPairs]:
    """Yields the negatives of a block of queries, for some thousands of queries at a time. Each query occurs once."""
    labelled = block.labelled
    is_positive = labelled.positive
    row, document = labelled.query[is_positive], labelled.document[is_positive]
    positive_scores = rounded(corpus.pair_scores(block.vectors, row, document))
    limits = score_limits(selection, queries=len(block.vectors), row=row, scores=positive_scores)
    tally.add_positives(positive_scores, limits)
    for members, depth in _groups(_left_out(block, corpus), selection.top, corpus.count):
        scores, indices = corpus.search(block.vectors[members], depth, progress=progress)
        for start in range(0, len(members), _CHOSEN_AT_ONCE):
            some = slice(start, start + _CHOSEN_AT_ONCE)
            queries = members[some]
            cosines = rounded(scores[some])
            chosen = choose_negatives(
                cosines,
                indices[some],
                _labels_of(labelled, queries, len(block.vectors)),
                selection,
                documents=corpus.count,
                limits=limits[queries],
                query_hashes=block.hashes[queries],
                document_hashes=corpus.hashes,
                equals=corpus.equals,
            )
            tally.add(chosen, cosines)
            at = np.nonzero(chosen.new | chosen.known)
            yield MinedPairs(queries[at[0]], indices[some][at].astype(np.int64), cosines[at], chosen.new[at])


def _left_out(block: Block, corpus: NegativesCorpus) -> Int64[np.ndarray, "queries"]:
    """Returns for each query the number of documents of the corpus that are its positives or equal to one."""
    labelled = block.labelled
    row, document = labelled.query[labelled.positive], labelled.document[labelled.positive]
    if corpus.equals is None or corpus.sizes is None:
        return np.bincount(row, minlength=len(block.vectors))
    once = np.unique(row * corpus.count + corpus.equals[document])
    counts = np.zeros(len(block.vectors), np.int64)
    np.add.at(counts, once // corpus.count, corpus.sizes[once % corpus.count])
    return counts


def _groups(
    left_out: Int64[np.ndarray, "queries"], top: int, documents: int
) -> Iterator[tuple[Int64[np.ndarray, "members"], int]]:
    """Yields groups of queries that are searched together, each with its depth: `top` and room for positives.

    The room is the number of positives, rounded up to a power of two. So a query with many positives makes the rankings
    of few other queries longer, and few depths are compiled.
    """
    room = np.where(left_out == 0, 0, 1 << np.ceil(np.log2(np.maximum(left_out, 1))).astype(np.int64))
    for size in np.unique(room):
        depth = min(documents, top + int(size))
        members = np.flatnonzero(room == size)
        at_once = max(1, _POSITIONS_IN_MEMORY // depth)
        for start in range(0, len(members), at_once):
            yield members[start : start + at_once], depth


def _labels_of(labelled: Labelled, queries: Int64[np.ndarray, "some"], count: int) -> Labelled:
    """Returns the labels of some of the `count` queries of a block. The rows of queries are numbered again from 0."""
    rows = np.full(count, -1, np.int64)
    rows[queries] = np.arange(len(queries))
    is_member = rows[labelled.query] >= 0
    return Labelled(rows[labelled.query[is_member]], labelled.document[is_member], labelled.positive[is_member])
