"""How well scores order pairs by their grades, with bootstrap intervals over queries."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64

from crops_jax.retrieval.intervals import Interval

# Grades are told apart at this resolution, so that a comparison of all couples is a small table.
_GRADES_A_UNIT = 50


def graded_auc(
    scores: Float[np.ndarray, "pairs"],
    targets: Float[np.ndarray, "pairs"],
    *,
    weights: Float[np.ndarray, "pairs"] | None = None,
) -> float:
    """The share of couples with different targets whose scores stand in the same order; equal scores count half.

    With two targets it is the area under the ROC curve (Hanley and McNeil 1982), with more Harrell's C. Couples are
    taken over all pairs, of whichever query, since one threshold alpha decides for all queries.

    Args:
      targets: in [0, 1], told apart at steps of 1/50.
      weights: of the pairs, such as how often each was drawn; a couple weighs the product.

    Returns:
      A number in [0, 1]; NaN where all targets are the same.
    """
    return _auc(*_ranked(scores, targets), np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64))


def auc_intervals(
    scores: Mapping[str, Float[np.ndarray, "pairs"]],
    targets: Float[np.ndarray, "pairs"],
    queries: Sequence[str],
    *,
    difference: tuple[str, str],
    seed: int = 0,
    samples: int = 1000,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """graded_auc of each scorer, and under "difference" the first named minus the second.

    Intervals are percentiles of a bootstrap over queries (all pairs of a query are drawn together), the same draws
    for all, so that the difference is paired.
    """
    _, query_of = np.unique(np.asarray(queries, dtype=np.str_), return_inverse=True)
    count = int(query_of.max(initial=-1)) + 1
    ranked = {name: _ranked(values, targets) for name, values in scores.items()}
    whole = {name: _auc(*parts, np.ones(len(query_of))) for name, parts in ranked.items()}
    random = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in scores}
    for _ in range(samples):
        times = np.bincount(random.integers(0, count, size=count), minlength=count)[query_of].astype(np.float64)
        for name, parts in ranked.items():
            drawn[name].append(_auc(*parts, times))
    values = {name: np.asarray(found) for name, found in drawn.items()}
    first, second = difference
    values["difference"], whole["difference"] = values[first] - values[second], whole[first] - whole[second]
    intervals = {}
    for name, found in values.items():
        # A draw of queries with one grade only says nothing.
        low, high = np.nanquantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
        intervals[name] = Interval(whole[name], float(low), float(high), count)
    return intervals


def _ranked(
    scores: Float[np.ndarray, "pairs"], targets: Float[np.ndarray, "pairs"]
) -> tuple[Int64[np.ndarray, "pairs"], Int64[np.ndarray, "pairs"]]:
    """The place of each score among the distinct scores, and of each target among the distinct targets."""
    grades = np.round(np.asarray(targets, np.float64) * _GRADES_A_UNIT)
    return np.unique(scores, return_inverse=True)[1], np.unique(grades, return_inverse=True)[1]


def _auc(
    rank: Int64[np.ndarray, "pairs"], grade: Int64[np.ndarray, "pairs"], weights: Float64[np.ndarray, "pairs"]
) -> float:
    grades = int(grade.max(initial=0)) + 1
    table = np.bincount(rank * grades + grade, weights, minlength=(int(rank.max(initial=0)) + 1) * grades)
    table = table.reshape(-1, grades)
    # Of each rank and grade: the weight that stands below in grade, at lower ranks and, by half, at the same one.
    below = np.cumsum(table, axis=0) - table / 2
    lower = np.cumsum(below, axis=1) - below
    of_grade = table.sum(axis=0)
    couples = (of_grade * (np.cumsum(of_grade) - of_grade)).sum()
    return float((table * lower).sum() / couples) if couples else float("nan")
