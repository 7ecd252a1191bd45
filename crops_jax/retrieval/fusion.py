"""Fusion of ranked lists of several retrievers, such as BM25 and a dense encoder, into one list for each query.

Both forms add up what each list gives to a document; a document that a list does not hold gets nothing from it.

Reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009) needs no training and reads ranks alone:

    score(d) = sum over lists of 1 / (60 + rank of d in the list)

The weighted sum (the convex combination of Bruch, Gai and Ingber, arXiv 2210.11934) reads scores, which it first maps
to [0, 1] for each query and list; its weight has to be chosen on queries that no test set holds:

    score(d) = sum over lists of weight * (s(d) - lowest) / (highest - lowest)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32

RankedLists = tuple[Float32[np.ndarray, "queries depth"], Int32[np.ndarray, "queries depth"]]
"""Scores and indices of the documents of each query, best first, each document once; index -1 is padding."""

RANK_CONSTANT = 60.0
"""The constant of reciprocal rank fusion in its paper: the greater it is, the less the first ranks stand out."""

WEIGHTS = tuple(step / 20 for step in range(21))
"""The weights of the first of two lists that `weight_curve` compares: 0, 0.05, ... 1."""


def reciprocal_rank_fusion(
    lists: Sequence[RankedLists],
    k: int,
    *,
    constant: float = RANK_CONSTANT,
    order: Int32[np.ndarray, "documents"] | None = None,
) -> RankedLists:
    """Returns the k best documents of each query by reciprocal rank fusion (Cormack et al. 2009, equation 1).

    Args:
      lists: the ranked lists of each retriever, for the same queries in the same order. Their depths can differ.
      k: the number of documents for each query, at least 1.
      constant: the number that is added to each rank, at least 0. Ranks start at 1.
      order: a distinct number for each document of the corpus; of documents with equal scores the lower number is
        first. By default it is the document's index.

    Returns:
      scores float32 [queries, k] and indices int32 [queries, k]; index -1 and score 0 fill the rest of a row.

    Raises:
      ValueError: there is no list, the lists have different queries, or k or the constant is out of range.
    """
    if not constant >= 0:
        raise ValueError(f"the constant of reciprocal rank fusion must be at least 0, found {constant}")
    parts = []
    for _, indices in lists:
        parts.append(np.broadcast_to(1 / (constant + np.arange(1, indices.shape[1] + 1)), indices.shape))
    return _best_of_sums(lists, parts, k, order=order)


def weighted_fusion(
    lists: Sequence[RankedLists],
    weights: Sequence[float],
    k: int,
    *,
    order: Int32[np.ndarray, "documents"] | None = None,
) -> RankedLists:
    """Returns the k best documents of each query by the weighted sum of normalised scores (`min_max`).

    A document that a list does not hold counts there as the list's last one: its normalised score is 0.

    Args:
      lists: the ranked lists of each retriever, for the same queries in the same order. Their depths can differ.
      weights: the weight of each list, at least 0.
      k, order: see `reciprocal_rank_fusion`.

    Returns:
      See `reciprocal_rank_fusion`.

    Raises:
      ValueError: there is no list, the lists have different queries, there is not one weight for each list, or a weight
        or k is out of range.
    """
    if len(weights) != len(lists) or not all(0 <= weight < np.inf for weight in weights):
        raise ValueError(f"one weight from 0 on is needed for each of the {len(lists)} lists, found {list(weights)}")
    parts = [weight * min_max(*one) for weight, one in zip(weights, lists, strict=True)]
    return _best_of_sums(lists, parts, k, order=order)


def min_max(
    scores: Float[np.ndarray, "queries depth"], indices: Int32[np.ndarray, "queries depth"]
) -> Float64[np.ndarray, "queries depth"]:
    """Returns the scores mapped to [0, 1] by query: 0 for the lowest score of the list, 1 for the highest.

    Where all scores of a list are equal, they become 1: the list does not order its documents, but it prefers them to
    all others. Padding (index -1) becomes 0.
    """
    held = indices >= 0
    exact = scores.astype(np.float64)
    low = np.where(held, exact, np.inf).min(axis=1, initial=np.inf, keepdims=True)
    high = np.where(held, exact, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    span = np.where(high > low, high - low, 1.0)
    normalised = np.where(high > low, (exact - np.where(held, low, 0.0)) / span, 1.0)
    return np.where(held, normalised, 0.0)


def weight_curve(
    first: RankedLists,
    second: RankedLists,
    measure: Callable[[Int32[np.ndarray, "queries k"]], float],
    k: int,
    *,
    weights: Sequence[float] = WEIGHTS,
    order: Int32[np.ndarray, "documents"] | None = None,
) -> dict[float, float]:
    """Returns for each weight w the measure of the weighted sum of two lists, with the weights w and 1 - w.

    Args:
      first, second: the ranked lists of two retrievers for the same dev queries.
      measure: a function of the fused documents, the greater the better.
      k: the number of fused documents for each query.
      weights: the values of w, each in [0, 1].
      order: see `reciprocal_rank_fusion`.
    """
    return {
        weight: measure(weighted_fusion((first, second), (weight, 1 - weight), k, order=order)[1]) for weight in weights
    }


def best_weight(curve: Mapping[float, float]) -> float:
    """Returns the weight with the greatest measure; of equal ones that nearest to 0.5, and of two as near the greater.

    Raises ValueError if the curve is empty.
    """
    if not curve:
        raise ValueError("a weight can only be chosen from at least one")
    return max(curve, key=lambda weight: (curve[weight], -round(abs(weight - 0.5), 9), weight))


def _best_of_sums(
    lists: Sequence[RankedLists], parts: Sequence[Float64[np.ndarray, "queries depth"]], k: int, *, order: Any
) -> RankedLists:
    """Returns the documents with the greatest sums of their parts. Equal sums in float32 are ties."""
    counts = {indices.shape[0] for _, indices in lists}
    if len(counts) != 1:
        raise ValueError(f"the lists must be those of the same queries, found lists of {sorted(counts)} queries")
    if k < 1:
        raise ValueError(f"k must be at least 1, found {k}")
    ids = np.concatenate([indices for _, indices in lists], axis=1)
    gains = np.concatenate(parts, axis=1)
    scores, best = np.zeros((len(ids), k), np.float32), np.full((len(ids), k), -1, np.int32)
    for row, (own_ids, own_gains) in enumerate(zip(ids, gains, strict=True)):
        held = own_ids >= 0
        documents, places = np.unique(own_ids[held], return_inverse=True)
        sums = np.bincount(places, own_gains[held], minlength=len(documents)).astype(np.float32)
        ranks = documents if order is None else np.asarray(order)[documents]
        kept = np.lexsort((ranks, -sums))[:k]
        scores[row, : kept.size], best[row, : kept.size] = sums[kept], documents[kept]
    return scores, best
