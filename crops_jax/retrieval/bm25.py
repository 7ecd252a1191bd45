"""BM25, the lexical peer of every dense retriever: Lucene's form, from bm25s.

score(q, d) = sum over terms t of q of idf(t) tf / (tf + k1 (1 - b + b |d| / mean |d|)),
idf(t) = log(1 + (N - df + .5) / (df + .5))
"""

import logging
from collections.abc import Sequence

import bm25s
import numpy as np
import Stemmer
from bm25s.stopwords import STOPWORDS_EN
from jaxtyping import Float32, Int32

from crops_jax.text import words

_STOP_WORDS = frozenset(STOPWORDS_EN)
# It sets itself to DEBUG when imported, and tells every index built on standard error.
logging.getLogger("bm25s").setLevel(logging.WARNING)


class Bm25:
    """An index of texts.

    Words are those of crops_jax.text.words: lower-cased, and character bigrams of Chinese, Japanese and Korean.
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
          texts: one a document.
          k1: saturation of term frequency, >= 0.
          b: share of length normalisation, 0 to 1.
          stop_words: leave out English stop words (bm25s's 33).
          stem: reduce words by the Snowball English stemmer. Other scripts pass unchanged.
        """
        if k1 < 0 or not 0 <= b <= 1:
            raise ValueError(f"k1 must be >= 0 and b in [0, 1], found {k1} and {b}")
        self._stop_words = _STOP_WORDS if stop_words else frozenset()
        self._stemmer = Stemmer.Stemmer("english") if stem else None
        self._texts = len(texts)
        terms = [self.terms(text) for text in texts]
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene") if any(terms) else None
        if self._index is not None:
            self._index.index(terms, show_progress=False)

    def terms(self, text: str) -> list[str]:
        """The terms that a text is matched by."""
        kept = [word for word in words(text) if word not in self._stop_words]
        return kept if self._stemmer is None else self._stemmer.stemWords(kept)

    def scores(self, query: str) -> Float32[np.ndarray, "texts"]:
        """The score of every text; 0 where no term matches."""
        known = self._index.get_tokens_ids(self.terms(query)) if self._index is not None else []
        if self._index is None or not known:
            return np.zeros(self._texts, np.float32)
        return self._index.get_scores_from_ids(known)

    def search(
        self, queries: Sequence[str], k: int, *, order: Int32[np.ndarray, "texts"] | None = None
    ) -> tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]]:
        """The k best texts of each query, best first.

        Args:
          queries: texts.
          k: at least 1; may exceed the number of texts.
          order: the place of each text among equals; by default its index.

        Returns:
          scores and indices. A text that shares no term is not retrieved: index -1 and score 0 fill the row.
        """
        place = np.arange(self._texts, dtype=np.int32) if order is None else np.asarray(order)
        scores = np.zeros((len(queries), k), np.float32)
        indices = np.full((len(queries), k), -1, np.int32)
        for row, query in enumerate(queries):
            found = self.scores(query)
            matched = np.flatnonzero(found > 0)
            if matched.size > k:
                # Everything that equals the k-th score stays, so that ties are settled by place and not by chance.
                least = np.partition(found[matched], matched.size - k)[matched.size - k]
                matched = matched[found[matched] >= least]
            best = matched[np.lexsort((place[matched], -found[matched]))][:k]
            scores[row, : best.size], indices[row, : best.size] = found[best], best
        return scores, indices
