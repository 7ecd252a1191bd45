"""Draws negatives of a ranking by the samplers of crops_jax.negatives, SimANS and TriSampler."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int, Int32, Int64, UInt64

from crops_jax.negatives import Sampler, draw_rows
from crops_jax.retrieval.hard_negatives import Draw, random_bits

DocumentScores = Callable[[Int[np.ndarray, "queries"], Int[np.ndarray, "queries k"]], Float32[np.ndarray, "queries k"]]
"""Returns the cosines of one document with others, for each query; an index can be -1."""


class Positives(NamedTuple):
    """The positive d+ of each query: its index in the corpus and its score; -1 and 0 for a query without one."""

    document: Int64[np.ndarray, "queries"]
    score: Float64[np.ndarray, "queries"]

    def of(self, queries: Int[np.ndarray, "some"]) -> "Positives":
        """Returns the positives of some queries."""
        return Positives(self.document[queries], self.score[queries])


def drawn_positives(
    query: Int64[np.ndarray, "positives"],
    document: Int64[np.ndarray, "positives"],
    scores: Float64[np.ndarray, "positives"],
    query_hashes: UInt64[np.ndarray, "queries"],
    document_hashes: UInt64[np.ndarray, "documents"],
    *,
    seed: int,
) -> Positives:
    """Returns one positive of each query, drawn by (seed, query, document) with equal probabilities.

    Args:
      query, document, scores: the row, the index and the score of each positive.
      query_hashes, document_hashes: the hashes that decide the draw.
      seed: the seed.
    """
    found = Positives(np.full(len(query_hashes), -1, np.int64), np.zeros(len(query_hashes)))
    bits = random_bits(query_hashes[query], document_hashes[document][:, None], seed)[:, 0]
    order = np.lexsort((bits, query))
    rows, first = np.unique(query[order], return_index=True)
    found.document[rows], found.score[rows] = document[order][first], scores[order][first]
    return found


@dataclass(frozen=True, kw_only=True)
class ScoreSampler:
    """A sampler, and the temperature by which cosines are divided before it draws.

    The draws of a query depend on its ranking, its labels, the seed and the query alone.
    """

    sampler: Sampler
    temperature: float
    seed: int
    between: DocumentScores | None = None
    """Returns the cosines of documents with each other. None for samplers that read none."""

    def draws(
        self,
        scores: Float64[np.ndarray, "queries k"],
        indices: Int[np.ndarray, "queries k"],
        positives: Positives,
        query_hashes: UInt64[np.ndarray, "queries"],
    ) -> Draw:
        """Returns the function that draws from rankings.

        A query without a scored positive has no draws, because both distributions are relative to its score.

        Args:
          scores, indices: the rankings as cosines and indices into the corpus; -1 after the end of a ranking.
          positives: the positive of each query.
          query_hashes: the hashes that decide the draws, with the seed.
        """
        compared = np.zeros(scores.shape) if self.between is None else self.between(positives.document, indices)

        def draw(free: np.ndarray, count: int) -> Int32[np.ndarray, "queries count"]:
            return draw_rows(
                self.sampler,
                scores=scores,
                positive_scores=positives.score,
                to_positive=compared,
                free=free & (positives.document[:, None] >= 0),
                temperature=self.temperature,
                seed=self.seed,
                hashes=query_hashes,
                count=count,
            )

        return draw
