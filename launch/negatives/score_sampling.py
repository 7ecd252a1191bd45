"""Draws negatives of a ranking by the samplers of crops_jax.negatives, SimANS and TriSampler."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Float64, Int, Int32, Int64, UInt64

from crops_jax.hashing import seed_hash, splitmix64
from crops_jax.negatives import Candidates, Sampler
from crops_jax.retrieval.hard_negatives import Draw, random_bits

# The number of rankings that are drawn from together. Shorter blocks are padded, so that few programs are compiled.
_ROWS_AT_ONCE = 1024


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
        queries = len(scores)
        compared = np.zeros(scores.shape) if self.between is None else self.between(positives.document, indices)
        bits = splitmix64(query_hashes ^ seed_hash(self.seed))
        keys = np.stack([bits >> np.uint64(32), bits & np.uint64(0xFFFFFFFF)], axis=1).astype(np.uint32)

        def draw(free: np.ndarray, count: int) -> Int32[np.ndarray, "queries count"]:
            found = np.empty((queries, count), np.int32)
            for start in range(0, queries, _ROWS_AT_ONCE):
                some = slice(start, start + _ROWS_AT_ONCE)
                free_here = free[some] & (positives.document[some, None] >= 0)
                candidates = Candidates(
                    score=_padded(np.where(free_here, scores[some], 0.0) / self.temperature, np.float32),
                    positive_score=_padded(positives.score[some] / self.temperature, np.float32),
                    to_positive=_padded(compared[some] / self.temperature, np.float32),
                    is_document=_padded(free_here, bool),
                    is_positive=_padded(np.zeros(free_here.shape, bool), bool),
                )
                drawn = _drawn(candidates, _padded(keys[some], np.uint32), sampler=self.sampler, count=count)
                found[some] = np.asarray(drawn)[: len(free_here)]
            return found

        return draw


def _padded(rows: np.ndarray, kind: type) -> Array:
    padding = ((0, _ROWS_AT_ONCE - len(rows)), *((0, 0) for _ in rows.shape[1:]))
    return jnp.asarray(np.pad(rows, padding).astype(kind))


@functools.partial(jax.jit, static_argnames=("sampler", "count"))
def _drawn(candidates: Candidates, keys: Array, *, sampler: Sampler, count: int) -> Array:
    """Returns the draws of each query with a key of its own, so that they do not depend on its neighbours."""

    def one(candidates: Candidates, key: Array) -> Array:
        row = jax.tree.map(lambda array: array[None], candidates)
        return sampler(row, jax.random.wrap_key_data(key, impl="threefry2x32"), count=count)[0]

    return jax.vmap(one)(candidates, keys)
