"""The AUC of scores: how well they order pairs by their grades, with bootstrap intervals over queries."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64

from crops_jax.retrieval.intervals import Interval

# The number of grades in [0, 1]: targets are rounded to steps of 1/50, so that a small table compares all couples.
_GRADES_PER_UNIT = 50


def graded_auc(
    scores: Float[np.ndarray, "pairs"],
    targets: Float[np.ndarray, "pairs"],
    *,
    weights: Float[np.ndarray, "pairs"] | None = None,
) -> float:
    """Returns the share of couples of pairs whose scores are in the order of their targets; equal scores count half.

    Only couples with different targets count. With two targets this is the area under the ROC curve (Hanley and McNeil
    1982), with more it is Harrell's C. The two pairs of a couple can have different queries, because one alpha, the
    threshold that the discriminator's probability must exceed, decides for all queries.

    Args:
      scores: one score for each pair; only their order counts.
      targets: in [0, 1]; they are rounded to steps of 1/50.
      weights: the weights of the pairs, such as how often each was drawn; the weight of a couple is their product.

    Returns:
      A number in [0, 1]; NaN if all targets are equal.
    """
    return _auc(*_ranks(scores, targets), np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64))


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
    """Returns graded_auc of each scorer, and as "difference" that of the first scorer minus that of the second.

    Intervals are percentiles of a bootstrap over queries (all pairs of a query are drawn together). All scorers have
    the same draws, so that the difference is paired.

    Args:
      scores: name of the scorer -> one score for each pair.
      targets: see graded_auc.
      queries: the query of each pair.
      difference: the names of the two scorers.
      seed: the seed of the bootstrap.
      samples: the number of bootstrap samples.
      confidence: the share of the bootstrap values within an interval.
    """
    _, query_of = np.unique(np.asarray(queries, dtype=np.str_), return_inverse=True)
    count = int(query_of.max(initial=-1)) + 1
    ranked = {name: _ranks(values, targets) for name, values in scores.items()}
    whole = {name: _auc(*parts, np.ones(len(query_of))) for name, parts in ranked.items()}
    random = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in scores}
    for _ in range(samples):
        times = np.bincount(random.integers(0, count, size=count), minlength=count)[query_of].astype(np.float64)
        for name, parts in ranked.items():
            drawn[name].append(_auc(*parts, times))
    values = {name: np.asarray(sample) for name, sample in drawn.items()}
    first, second = difference
    values["difference"], whole["difference"] = values[first] - values[second], whole[first] - whole[second]
    intervals = {}
    for name, sample in values.items():
        # A draw of queries with a single grade has no AUC.
        low, high = np.nanquantile(sample, [(1 - confidence) / 2, (1 + confidence) / 2])
        intervals[name] = Interval(whole[name], float(low), float(high), count)
    return intervals


def _ranks(
    scores: Float[np.ndarray, "pairs"], targets: Float[np.ndarray, "pairs"]
) -> tuple[Int64[np.ndarray, "pairs"], Int64[np.ndarray, "pairs"]]:
    """Returns the rank of each score among the distinct scores, and of each target among the distinct targets."""
    grades = np.round(np.asarray(targets, np.float64) * _GRADES_PER_UNIT)
    return np.unique(scores, return_inverse=True)[1], np.unique(grades, return_inverse=True)[1]


def _auc(
    rank: Int64[np.ndarray, "pairs"], grade: Int64[np.ndarray, "pairs"], weights: Float64[np.ndarray, "pairs"]
) -> float:
    grades = int(grade.max(initial=0)) + 1
    table = np.bincount(rank * grades + grade, weights, minlength=(int(rank.max(initial=0)) + 1) * grades)
    table = table.reshape(-1, grades)
    # For each rank and grade, `lower` is the weight of lower grades at lower ranks, and half of that at the same rank.
    below = np.cumsum(table, axis=0) - table / 2
    lower = np.cumsum(below, axis=1) - below
    grade_weights = table.sum(axis=0)
    couples = (grade_weights * (np.cumsum(grade_weights) - grade_weights)).sum()
    return float((table * lower).sum() / couples) if couples else float("nan")
