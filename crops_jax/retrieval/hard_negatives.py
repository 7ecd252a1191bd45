"""Hard negatives out of a ranking: which of a query's nearest documents become its negatives.

A retriever's nearest documents that nobody chose are the hardest negatives it can have, and some of them are not
negatives at all: nobody saw them. What guards against those is known here by the names it has elsewhere: ranks that
are passed over (RocketQA, arXiv 2010.08191), and a margin to the score of the positive, absolute or relative
(TopK-PercPos of NV-Retriever, arXiv 2407.15831).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64, UInt64

from crops_jax.hashing import seed_hash, splitmix64

DECIMALS = 6
"""Scores and limits are rounded to so many before they are compared: what is written is what was decided on."""

_GREATEST_CHANCE = np.uint64(2**64 - 1)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which documents of a ranking are taken. Ranks count from 1, known positives left out."""

    top: int = 100
    """The lowest rank that is considered."""
    skip: int = 0
    """So many of the first ranks are passed over."""
    per_query: int = 8
    """At most so many documents of a query."""
    sampling: Literal["top", "random"] = "top"
    """top: those of the first ranks. random: drawn among all that are considered."""
    absolute_margin: float | None = None
    """A negative scores lower than positive - margin."""
    relative_margin: float | None = None
    """A negative scores lower than positive - margin * |positive|."""
    margin_to: Literal["best", "least"] = "best"
    """The positive that margins are measured from: the query's best, or its least, and so each of them."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per_query < 1:
            raise ValueError(f"--per-query must be at least 1, found {self.per_query}")
        if not 0 <= self.skip < self.top:
            raise ValueError(f"--skip must be at least 0 and below --top ({self.top}), found {self.skip}")
        for name, most in (("absolute_margin", 2.0), ("relative_margin", 1.0)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= most:
                raise ValueError(f"--{name.replace('_', '-')} must lie in 0 to {most:g}, found {value}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, found {self.seed}")

    @property
    def has_margin(self) -> bool:
        return self.absolute_margin is not None or self.relative_margin is not None


class Labelled(NamedTuple):
    """The labelled documents of some queries, one entry a pair.

    query: the query's row. document: its place in the corpus. positive: whether it is one of the query's positives.
    """

    query: Int64[np.ndarray, "pairs"]
    document: Int64[np.ndarray, "pairs"]
    positive: Bool[np.ndarray, "pairs"]


class Chosen(NamedTuple):
    """Of each place in the rankings, what it is.

    new: taken as a negative. known: would have been considered, and has a negative label already. positive: a known
    positive, or equal to one. beyond_margin: would have been considered, but scores too near a positive, or higher.
    """

    new: Bool[np.ndarray, "queries k"]
    known: Bool[np.ndarray, "queries k"]
    positive: Bool[np.ndarray, "queries k"]
    beyond_margin: Bool[np.ndarray, "queries k"]


def rounded(scores: np.ndarray) -> Float64[np.ndarray, "..."]:
    """Cosines as they are written and compared: 6 decimals, within -1 to 1."""
    return np.clip(np.round(np.asarray(scores, np.float64), DECIMALS), -1.0, 1.0) + 0.0


def score_limits(
    selection: Selection,
    *,
    queries: int,
    row: Int[np.ndarray, "positives"],
    scores: Float64[np.ndarray, "positives"],
) -> Float64[np.ndarray, "queries"]:
    """The score that negatives of each query have to stay below.

    Args:
      selection: the margins; where both are set both hold. Without any there is no limit: +inf.
      queries: how many there are.
      row: of each positive, its query.
      scores: of the positives, rounded. A query without a scored positive has -inf: no margin to it can be kept.
    """
    if not selection.has_margin:
        return np.full(queries, np.inf)
    if selection.margin_to == "best":
        positive = np.full(queries, -np.inf)
        np.maximum.at(positive, row, scores)
    else:
        positive = np.full(queries, np.inf)
        np.minimum.at(positive, row, scores)
        positive[np.isinf(positive)] = -np.inf
    limits = np.full(queries, np.inf)
    if selection.absolute_margin is not None:
        limits = np.minimum(limits, positive - selection.absolute_margin)
    if selection.relative_margin is not None:
        # The size of the score, not the score: a share of a negative one would move the limit up.
        scored = np.where(np.isinf(positive), 0.0, positive)
        limits = np.minimum(limits, positive - selection.relative_margin * np.abs(scored))
    return np.round(limits, DECIMALS)


def choose_negatives(
    scores: Float64[np.ndarray, "queries k"],
    indices: Int[np.ndarray, "queries k"],
    labelled: Labelled,
    selection: Selection,
    *,
    documents: int,
    limits: Float64[np.ndarray, "queries"],
    query_hashes: UInt64[np.ndarray, "queries"],
    document_hashes: UInt64[np.ndarray, "documents"],
    equals: Int[np.ndarray, "documents"] | None = None,
) -> Chosen:
    """Decides on every place of the rankings of some queries.

    Args:
      scores: rounded, best first.
      indices: of documents; -1 where a ranking has ended.
      labelled: of these queries.
      selection: what to take.
      documents: in the corpus.
      limits: of score_limits.
      query_hashes, document_hashes: what chance depends on, beside the seed; nothing else does.
      equals: a number for each document, the same for those that count as one: what equals a positive is a positive.
        By default each document is only itself.
    """
    found = indices >= 0
    places = np.arange(len(indices), dtype=np.int64)[:, None] * documents
    alike = np.arange(documents) if equals is None else equals
    shared = labelled.query * documents + alike[labelled.document]
    positive = found & _among(places + alike[indices], shared[labelled.positive])
    own = labelled.query * documents + labelled.document
    negative = found & ~positive & _among(places + indices, own[~labelled.positive])

    rank = np.cumsum(found & ~positive, axis=1)
    considered = found & ~positive & (rank > selection.skip) & (rank <= selection.top)
    below = scores < limits[:, None]
    free = considered & below & ~negative
    if selection.sampling == "top":
        new = free & (np.cumsum(free, axis=1) <= selection.per_query)
    else:
        chance = _chance(query_hashes, document_hashes[indices], selection.seed)
        order = np.argsort(np.where(free, chance, _GREATEST_CHANCE), axis=1, kind="stable")
        drawn = np.zeros(free.shape, bool)
        np.put_along_axis(drawn, order[:, : selection.per_query], True, axis=1)
        new = free & drawn
    return Chosen(new, considered & below & negative, positive, considered & ~below)


def _among(keys: Int64[np.ndarray, "queries k"], known: Int64[np.ndarray, "pairs"]) -> Bool[np.ndarray, "queries k"]:
    if not known.size:
        return np.zeros(keys.shape, bool)
    known = np.sort(known)
    return known[np.minimum(np.searchsorted(known, keys), known.size - 1)] == keys


def _chance(
    queries: UInt64[np.ndarray, "queries"], documents: UInt64[np.ndarray, "queries k"], seed: int
) -> UInt64[np.ndarray, "queries k"]:
    """64 random bits of (seed, query, document)."""
    rows = splitmix64(queries ^ seed_hash(seed))
    return splitmix64(documents ^ rows[:, None])
