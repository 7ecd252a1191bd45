"""Documents that BM25 ranks for the queries of a label table."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Int, Int64

from crops_jax.hashing import id_hashes
from crops_jax.retrieval.bm25 import Bm25
from launch.corpus.documents import Corpus
from launch.negatives.neighbours import Ranking, order_of_ids

_QUERIES_AT_ONCE = 256


class LexicalCorpus:
    """A corpus that is ranked by BM25; the queries are arrays of texts.

    A score is that of BM25 divided by the score of the query's best document, because the scores of a label table lie
    in -1 to 1.
    """

    def __init__(self, corpus: Corpus, *, equals: Int64[np.ndarray, "documents"] | None = None):
        """Builds the index.

        Args:
          corpus: the documents.
          equals: a number for each document, the same for documents that are treated as equal.
        """
        self.count = len(corpus.doc_ids)
        self.hashes = id_hashes(corpus.doc_ids)
        self.equals = equals
        self._order = order_of_ids(corpus.doc_ids)
        self._bm25 = Bm25(corpus.texts)

    @property
    def settings(self) -> dict:
        """The settings of the search, for the outcome line."""
        return {"kind": "bm25", "k1": 1.2, "b": 0.75}

    def search(self, queries: np.ndarray, k: int, *, progress: Callable[[int], object]) -> Ranking:
        """Returns the k best documents of each query. A document that shares no term with it is not retrieved."""
        parts = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            texts = queries[start : start + _QUERIES_AT_ONCE].tolist()
            parts.append(self._bm25.search(texts, k, order=self._order))
            progress(len(texts) * self.count)
        scores, indices = (np.concatenate(part) for part in zip(*parts, strict=True))
        return scores / np.where(scores[:, :1] > 0, scores[:, :1], np.float32(1)), indices

    def pair_scores(
        self, queries: np.ndarray, query: Int[np.ndarray, "pairs"], document: Int[np.ndarray, "pairs"]
    ) -> Float32[np.ndarray, "pairs"]:
        """Returns the BM25 scores of pairs, equal to those of the search."""
        scores = np.zeros(len(query), np.float32)
        order = np.argsort(query, kind="stable")
        rows, first = np.unique(query[order], return_index=True)
        for row, start, end in zip(rows, first, np.append(first, len(order))[1:], strict=True):
            pairs = order[start:end]
            of_texts = self._bm25.scores(str(queries[row]))
            best = of_texts.max()
            scores[pairs] = of_texts[document[pairs]] / (best if best > 0 else np.float32(1))
        return scores
