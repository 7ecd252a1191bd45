"""BM25, the lexical baseline of dense retrievers, in the form of Lucene; the package bm25s computes it.

score(q, d) = sum over terms t of q of idf(t) tf / (tf + k1 (1 - b + b |d| / mean |d|)),
idf(t) = log(1 + (N - df + .5) / (df + .5))
"""

import logging
from collections.abc import Sequence

import numpy as np
import Stemmer
from jaxtyping import Float32, Int32

from crops_jax.text import words


class Bm25:
    """A BM25 index of texts.

    The words are those of crops_jax.text.words: lower-cased, with character bigrams of Chinese, Japanese and Korean.
    """

    def __init__(
        self,
        texts: Sequence[str],
        *,
        k1: float = 1.2,
        b: float = 0.75,
        stop_words: bool = True,
        stem: bool = True,
    ):
        """Builds the index.

        Args:
          texts: one text for each document.
          k1: the saturation of the term frequency, at least 0.
          b: the degree of length normalisation, 0 to 1.
          stop_words: whether to omit English stop words (the 33 of bm25s).
          stem: whether to stem words with the Snowball English stemmer. Words in other scripts are unchanged.

        Raises ValueError if k1 or b is out of range.
        """
        if k1 < 0 or not 0 <= b <= 1:
            raise ValueError(f"k1 must be >= 0 and b in [0, 1], found {k1} and {b}")
        import bm25s  # here, because it loads JAX
        from bm25s.stopwords import STOPWORDS_EN

        # bm25s sets its level to DEBUG when it is imported, and would log each built index on standard error.
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        self._stop_words = frozenset(STOPWORDS_EN if stop_words else ())
        self._stemmer = Stemmer.Stemmer("english") if stem else None
        self._texts = len(texts)
        terms = [self.terms(text) for text in texts]
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene") if any(terms) else None
        if self._index is not None:
            self._index.index(terms, show_progress=False)

    def terms(self, text: str) -> list[str]:
        """Returns the terms of a text."""
        kept = [word for word in words(text) if word not in self._stop_words]
        return kept if self._stemmer is None else self._stemmer.stemWords(kept)

    def scores(self, query: str) -> Float32[np.ndarray, "texts"]:
        """Returns the score of every text for a query; it is 0 if no term matches."""
        known = self._index.get_tokens_ids(self.terms(query)) if self._index is not None else []
        if self._index is None or not known:
            return np.zeros(self._texts, np.float32)
        return self._index.get_scores_from_ids(known)

    def search(
        self, queries: Sequence[str], k: int, *, order: Int32[np.ndarray, "texts"] | None = None
    ) -> tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]]:
        """Returns the k best texts of each query, best first.

        Args:
          queries: the queries as text.
          k: the number of texts for each query, at least 1; it can exceed the number of texts.
          order: a number for each text; of texts with equal scores the lower number is first. By default it is the
            text's index.

        Returns:
          scores and indices. A text that shares no term with the query is not retrieved: index -1 and score 0 fill the
          rest of the row.
        """
        ranks = np.arange(self._texts, dtype=np.int32) if order is None else np.asarray(order)
        scores = np.zeros((len(queries), k), np.float32)
        indices = np.full((len(queries), k), -1, np.int32)
        for row, query in enumerate(queries):
            text_scores = self.scores(query)
            matched = np.flatnonzero(text_scores > 0)
            if matched.size > k:
                # All texts with the k-th score are kept, so that `order` decides between equal scores.
                kth_score = np.partition(text_scores[matched], matched.size - k)[matched.size - k]
                matched = matched[text_scores[matched] >= kth_score]
            best = matched[np.lexsort((ranks[matched], -text_scores[matched]))][:k]
            scores[row, : best.size], indices[row, : best.size] = text_scores[best], best
        return scores, indices
