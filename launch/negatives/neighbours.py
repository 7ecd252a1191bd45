"""Ranks documents for queries, and selects negatives from the rankings."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float32, Float64, Int, Int32, Int64, UInt64

from crops_jax.embeddings import Embeddings
from crops_jax.errors import InputError
from crops_jax.hashing import id_hashes
from crops_jax.retrieval.exact import inner_products, local_mesh
from crops_jax.retrieval.hard_negatives import Labelled, Selection, choose_negatives, rounded, score_limits
from crops_jax.retrieval.mapped import mapped_top_k, take_rows
from crops_jax.retrieval.scann_index import build_index
from launch.negatives.score_sampling import ScoreSampler, drawn_positives
from launch.negatives.tally import Tally

# The number of positions of rankings that are in memory at once: 128 MiB.
_POSITIONS_IN_MEMORY = 1 << 24
# The number of queries whose negatives are selected together, and of pairs that are scored together.
_CHOSEN_AT_ONCE = 4096
_PAIRS_AT_ONCE = 65_536

Ranking = tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]]


class RankedCorpus(Protocol):
    """Documents that can be ranked for queries, which are given in the form that the corpus takes: vectors or texts."""

    count: int
    hashes: UInt64[np.ndarray, "documents"]
    equals: Int64[np.ndarray, "documents"] | None
    """A number for each document, the same for documents that are treated as equal; None: no two are."""

    @property
    def settings(self) -> dict:
        """The settings of the search, for the outcome line."""
        ...

    def search(self, queries: np.ndarray, k: int, *, progress: Callable[[int], object]) -> Ranking:
        """Returns the k best documents of each query, best first; the index is -1 after the end of a ranking."""
        ...

    def pair_scores(
        self, queries: np.ndarray, query: Int[np.ndarray, "pairs"], document: Int[np.ndarray, "pairs"]
    ) -> Float32[np.ndarray, "pairs"]:
        """Returns the scores of pairs, equal to those of the search."""
        ...


class Block(NamedTuple):
    """A block of queries: their vectors (or their texts, for BM25), their hashes and their labelled documents."""

    queries: Float32[np.ndarray, "queries dim"] | np.ndarray
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
        self.order = order_of_ids(documents.ids)
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

    def between(
        self, document: Int[np.ndarray, "queries"], others: Int[np.ndarray, "queries k"]
    ) -> Float32[np.ndarray, "queries k"]:
        """Returns the cosines of one document with others, for each query; an index of -1 stands for document 0."""
        given = take_rows(self.shards, np.maximum(document, 0))
        found = np.empty(others.shape, np.float32)
        at_once = max(1, _PAIRS_AT_ONCE // max(1, others.shape[1]))
        for start in range(0, len(document), at_once):
            some = slice(start, start + at_once)
            vectors = take_rows(self.shards, np.maximum(others[some], 0).ravel())
            vectors = vectors.reshape(*others[some].shape, -1)
            found[some] = np.einsum("qd,qkd->qk", given[some], vectors)
        return found


def order_of_ids(ids: Sequence[str]) -> Int32[np.ndarray, "ids"]:
    """Returns the position of each id in the order of ids. It breaks ties, so that the order of a table never does."""
    order = np.empty(len(ids), np.int32)
    order[pc.sort_indices(pa.array(ids, pa.string())).to_numpy()] = np.arange(len(ids), dtype=np.int32)
    return order


def mine_block(
    block: Block,
    corpus: RankedCorpus,
    selection: Selection,
    tally: Tally,
    *,
    sampler: ScoreSampler | None = None,
    progress: Callable[[int], object],
) -> Iterator[MinedPairs]:
    """Yields the negatives of a block of queries, for some thousands of queries at a time. Each query occurs once.

    Args:
      block: the queries.
      corpus: the documents.
      selection: the rules of the selection.
      tally: the counts, to which those of the block are added.
      sampler: the sampler that draws, if the selection has one.
      progress: a function that is called with the number of pairs that were scored since its last call.
    """
    labelled, count = block.labelled, len(block.queries)
    is_positive = labelled.positive
    row, document = labelled.query[is_positive], labelled.document[is_positive]
    positive_scores = rounded(corpus.pair_scores(block.queries, row, document))
    limits = score_limits(selection, queries=count, row=row, scores=positive_scores)
    tally.add_positives(positive_scores, limits)
    anchors = None
    if sampler is not None:
        anchors = drawn_positives(row, document, positive_scores, block.hashes, corpus.hashes, seed=selection.seed)
    for members, depth in _groups(_left_out(block, corpus), selection.top, corpus.count):
        scores, indices = corpus.search(block.queries[members], depth, progress=progress)
        for start in range(0, len(members), _CHOSEN_AT_ONCE):
            some = slice(start, start + _CHOSEN_AT_ONCE)
            queries = members[some]
            written = rounded(scores[some])
            draw = None
            if sampler is not None and anchors is not None:
                draw = sampler.draws(written, indices[some], anchors.of(queries), block.hashes[queries])
            chosen = choose_negatives(
                written,
                indices[some],
                _labels_of(labelled, queries, count),
                selection,
                documents=corpus.count,
                limits=limits[queries],
                query_hashes=block.hashes[queries],
                document_hashes=corpus.hashes,
                equals=corpus.equals,
                draw=draw,
            )
            tally.add(chosen, written)
            at = np.nonzero(chosen.new | chosen.known)
            yield MinedPairs(queries[at[0]], indices[some][at].astype(np.int64), written[at], chosen.new[at])


def _left_out(block: Block, corpus: RankedCorpus) -> Int64[np.ndarray, "queries"]:
    """Returns for each query the number of documents of the corpus that are its positives or equal to one."""
    labelled = block.labelled
    row, document = labelled.query[labelled.positive], labelled.document[labelled.positive]
    if corpus.equals is None:
        return np.bincount(row, minlength=len(block.queries))
    sizes = np.bincount(corpus.equals, minlength=corpus.count)
    once = np.unique(row * corpus.count + corpus.equals[document])
    counts = np.zeros(len(block.queries), np.int64)
    np.add.at(counts, once // corpus.count, sizes[once % corpus.count])
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
