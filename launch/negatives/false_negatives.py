"""How many mined negatives are none: counted on those that somebody judged."""

import math
from typing import Any

from crops_jax.retrieval.metrics import is_relevant

_NORMAL_QUANTILE = 1.959964


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927), which says something of shares of 0 and 1 too.

    (p + z^2 / 2n  -+  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"successes must lie in 0 to trials, and trials be at least 1, found {successes} of {trials}")
    share, z = successes / trials, _NORMAL_QUANTILE
    middle = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # At the ends rounding would leave the least bit beyond 0 or 1.
    low = 0.0 if successes == 0 else (middle - half) / scale
    return low, 1.0 if successes == trials else (middle + half) / scale


def false_negative_rate(
    judged: list[tuple[str, float]], *, mined: int, relevant_grade: float | None, absent: str | None = None
) -> dict[str, Any]:
    """The share of judged mined negatives that are relevant, with its interval.

    Args:
      judged: query and grade of each mined row that a judgement of split train, or without split, names.
      mined: how many rows were mined.
      relevant_grade: the least relevant grade; None: above 0.
      absent: why nothing could be judged.

    Returns:
      {"rate", "low", "high", "judged", "relevant", "queries", "mined"}; without anything judged the first three are
      null and "why" says so. Pairs of one query are alike, so the interval is too narrow where few queries hold many.
    """
    relevant = sum(is_relevant(grade, relevant_grade) for _, grade in judged)
    counts = {
        "judged": len(judged),
        "relevant": relevant,
        "queries": len({query for query, _ in judged}),
        "mined": mined,
    }
    if not judged:
        why = absent or "no judgement of split train names a mined pair"
        return {"rate": None, "low": None, "high": None, **counts, "why": why}
    low, high = wilson_interval(relevant, len(judged))
    return {"rate": round(relevant / len(judged), 4), "low": round(low, 4), "high": round(high, 4), **counts}
