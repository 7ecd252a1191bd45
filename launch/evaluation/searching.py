"""The retrieval for the queries of the test sets: by the encoder with exact search, by its index, and by BM25."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crops_jax.embeddings import Embeddings
from crops_jax.program.progress import ProgressLine
from launch.corpus.documents import Corpus

if TYPE_CHECKING:
    from crops_jax.retrieval.scann_index import Index

DEPTH = 200
"""The number of documents that a search returns for a query. The deepest metric is at 100; residual rankings, which
leave documents out, are filled from below."""
_INDEX_DEPTH = 100


class Retrieved(NamedTuple):
    """The documents that a system retrieves for each query, best first, by index into the corpus (-1: none)."""

    scores: np.ndarray
    indices: np.ndarray

    def first(self, queries: int) -> "Retrieved":
        """Returns the lists of the first queries."""
        return Retrieved(self.scores[:queries], self.indices[:queries])

    def after(self, queries: int) -> "Retrieved":
        """Returns the lists of the queries after the first ones."""
        return Retrieved(self.scores[queries:], self.indices[queries:])


class Bm25Parameters(NamedTuple):
    """The parameters of BM25, and the description of their choice for metrics.json; empty if nothing was chosen."""

    k1: float
    b: float
    choice: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SearchResults:
    """The documents that the systems retrieve from one corpus for the same queries."""

    corpus: Corpus
    queries: Sequence[str]
    encoder: Retrieved
    """The encoder's documents by exact search."""
    bm25: Retrieved
    bm25_parameters: Bm25Parameters
    served: Retrieved
    """The encoder's documents from its index."""
    index: "Index"
    vectors: Embeddings
    """The vectors of the documents."""
    combined: Mapping[str, Retrieved] = field(default_factory=dict)
    """The documents of the systems on top of the encoder, such as "fusion_rrf"."""
    combinations: Mapping[str, Any] = field(default_factory=dict)
    """The descriptions of these systems for metrics.json."""

    @functools.cached_property
    def rankings(self) -> dict[str, dict[str, list[str]]]:
        """System ("encoder", "bm25", "index" and those of `combined`) -> query -> document ids, best first."""
        systems = {"encoder": self.encoder, "bm25": self.bm25, "index": self.served, **self.combined}
        return {
            system: {
                query: [self.corpus.doc_ids[index] for index in map(int, row[row >= 0])]
                for query, row in zip(self.queries, retrieved.indices, strict=True)
            }
            for system, retrieved in systems.items()
        }

    def answers(self) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
        """System ("encoder", "bm25" and those of `combined`) -> query -> (scores, indices into the corpus)."""
        systems = {"encoder": self.encoder, "bm25": self.bm25, **self.combined}
        return {
            system: dict(zip(self.queries, zip(*retrieved, strict=True), strict=True))
            for system, retrieved in systems.items()
        }


def search_exactly(query_vectors: np.ndarray, vectors: Embeddings, corpus: Corpus) -> Retrieved:
    """The documents of the greatest dot products with each query."""
    from crops_jax.retrieval.exact import local_mesh
    from crops_jax.retrieval.mapped import mapped_top_k

    depth = min(DEPTH, len(corpus.doc_ids))
    pairs = len(query_vectors) * len(corpus.doc_ids)
    with ProgressLine(total=pairs, desc="exact search", unit="pairs") as bar:
        scores, indices = mapped_top_k(
            query_vectors, vectors.shards, depth, order=corpus.order, mesh=local_mesh(), progress=bar.update
        )
    return Retrieved(scores, indices)


def index_depth(corpus: Corpus) -> int:
    """The number of documents that the index returns for a query."""
    return min(_INDEX_DEPTH, len(corpus.doc_ids))
