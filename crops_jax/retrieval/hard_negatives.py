"""Selects hard negatives from a ranking: some of the nearest documents of a query become its negatives.

The nearest documents without a click are the hardest negatives of a retriever, but some of them are false negatives:
relevant documents that no user saw. Two known methods avoid these: skipping the first ranks (RocketQA, arXiv
2010.08191), and a margin to the score of the positive, absolute or relative (TopK-PercPos of NV-Retriever, arXiv
2407.15831).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32, Int64, UInt64

from crops_jax.hashing import seed_hash, splitmix64

DECIMALS = 6
"""The number of decimals to which scores and limits are rounded before comparison, so that written scores decide."""

Draw = Callable[[Bool[np.ndarray, "queries k"], int], Int32[np.ndarray, "queries count"]]
"""Draws `count` of the positions of each ranking for which a mask is true. If there are fewer, the last ones are -1."""

_LARGEST_BITS = np.uint64(2**64 - 1)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The rules that select documents of a ranking. Ranks count from 1 and omit known positives."""

    top: int = 100
    """The last rank that is considered."""
    skip: int = 0
    """The number of first ranks that are skipped."""
    per_query: int = 8
    """The maximum number of documents that are selected for a query."""
    sampling: Literal["top", "random", "simans", "trisampler"] = "top"
    """top: the first of the considered ranks are selected. random: documents are drawn among all considered ranks with
    equal probabilities. simans, trisampler: they are drawn by the sampler of that name (crops_jax.negatives)."""
    absolute_margin: float | None = None
    """The score of a negative must be less than positive - margin."""
    relative_margin: float | None = None
    """The score of a negative must be less than positive - margin * |positive|."""
    margin_to: Literal["best", "least"] = "best"
    """The positive to which margins apply: the one with the best score, or with the least and so to every one."""
    seed: int = 0
    """The seed of random sampling."""

    def __post_init__(self) -> None:
        if self.per_query < 1:
            raise ValueError(f"--per-query must be at least 1, found {self.per_query}")
        if not 0 <= self.skip < self.top:
            raise ValueError(f"--skip must be at least 0 and below --top ({self.top}), found {self.skip}")
        for name, limit in (("absolute_margin", 2.0), ("relative_margin", 1.0)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= limit:
                raise ValueError(f"--{name.replace('_', '-')} must lie in 0 to {limit:g}, found {value}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, found {self.seed}")

    @property
    def has_sampler(self) -> bool:
        """Whether a sampler of crops_jax.negatives draws."""
        return self.sampling in ("simans", "trisampler")

    @property
    def has_margin(self) -> bool:
        """Whether an absolute or a relative margin is set."""
        return self.absolute_margin is not None or self.relative_margin is not None


class Labelled(NamedTuple):
    """The labelled documents of some queries, with one entry for each pair.

    query: the row of the query. document: the index of the document in the corpus. positive: whether the document is a
    positive of the query.
    """

    query: Int64[np.ndarray, "pairs"]
    document: Int64[np.ndarray, "pairs"]
    positive: Bool[np.ndarray, "pairs"]


class Chosen(NamedTuple):
    """The decision on each position of the rankings, as masks.

    new: the document becomes a negative. known: it is considered, and already has a negative label. positive: it is a
    known positive, or equal to one. beyond_margin: it is considered, but its score is not below the limit.
    """

    new: Bool[np.ndarray, "queries k"]
    known: Bool[np.ndarray, "queries k"]
    positive: Bool[np.ndarray, "queries k"]
    beyond_margin: Bool[np.ndarray, "queries k"]


def rounded(scores: np.ndarray) -> Float64[np.ndarray, "..."]:
    """Returns cosines in the form that is written and compared: rounded to 6 decimals, and clipped to -1 to 1."""
    return np.clip(np.round(np.asarray(scores, np.float64), DECIMALS), -1.0, 1.0) + 0.0


def score_limits(
    selection: Selection,
    *,
    queries: int,
    row: Int[np.ndarray, "positives"],
    scores: Float64[np.ndarray, "positives"],
) -> Float64[np.ndarray, "queries"]:
    """Returns the limit of each query: the scores of its negatives must be less.

    Args:
      selection: the margins; if both are set, both apply. Without a margin the limits are +inf.
      queries: the number of queries.
      row: the row of the query of each positive.
      scores: the rounded scores of the positives. A query without a scored positive has the limit -inf, because no
        margin can be measured.
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
        # The margin is a share of the magnitude: a share of a negative score would raise the limit.
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
    draw: Draw | None = None,
) -> Chosen:
    """Returns the decision on every position of the rankings of some queries.

    Args:
      scores: the rounded scores, best first.
      indices: the indices of the documents; -1 after the end of a ranking.
      labelled: the labelled documents of these queries.
      selection: the rules.
      documents: the number of documents in the corpus.
      limits: the result of score_limits.
      query_hashes, document_hashes: the hashes from which, with the seed, random sampling draws; it uses nothing else.
      equals: a number for each document; documents with the same number are equal, and an equal of a positive is a
        positive. By default no two documents are equal.
      draw: the draws of a sampler, among the considered documents that have no label yet and are below the limit;
        needed if the selection has a sampler, and not used otherwise.

    Raises ValueError if the selection has a sampler and `draw` is missing.
    """
    if selection.has_sampler and draw is None:
        raise ValueError(f"choose_negatives: sampling {selection.sampling!r} needs the draws of its sampler")
    retrieved = indices >= 0
    first_keys = np.arange(len(indices), dtype=np.int64)[:, None] * documents
    numbers = np.arange(documents) if equals is None else equals
    number_keys = labelled.query * documents + numbers[labelled.document]
    positive = retrieved & _contained(first_keys + numbers[indices], number_keys[labelled.positive])
    pair_keys = labelled.query * documents + labelled.document
    negative = retrieved & ~positive & _contained(first_keys + indices, pair_keys[~labelled.positive])

    rank = np.cumsum(retrieved & ~positive, axis=1)
    considered = retrieved & ~positive & (rank > selection.skip) & (rank <= selection.top)
    below = scores < limits[:, None]
    free = considered & below & ~negative
    if selection.sampling == "top":
        new = free & (np.cumsum(free, axis=1) <= selection.per_query)
    elif selection.has_sampler and draw is not None:
        positions = draw(free, selection.per_query)
        new = np.zeros(free.shape, bool)
        row, column = np.nonzero(positions >= 0)
        new[row, positions[row, column]] = True
    else:
        bits = random_bits(query_hashes, document_hashes[indices], selection.seed)
        order = np.argsort(np.where(free, bits, _LARGEST_BITS), axis=1, kind="stable")
        drawn = np.zeros(free.shape, bool)
        np.put_along_axis(drawn, order[:, : selection.per_query], True, axis=1)
        new = free & drawn
    return Chosen(new, considered & below & negative, positive, considered & ~below)


def _contained(
    keys: Int64[np.ndarray, "queries k"], known: Int64[np.ndarray, "pairs"]
) -> Bool[np.ndarray, "queries k"]:
    if not known.size:
        return np.zeros(keys.shape, bool)
    known = np.sort(known)
    return known[np.minimum(np.searchsorted(known, keys), known.size - 1)] == keys


def random_bits(
    queries: UInt64[np.ndarray, "queries"], documents: UInt64[np.ndarray, "queries k"], seed: int
) -> UInt64[np.ndarray, "queries k"]:
    """Returns 64 random bits for each pair, as a function of (seed, query, document)."""
    rows = splitmix64(queries ^ seed_hash(seed))
    return splitmix64(documents ^ rows[:, None])
