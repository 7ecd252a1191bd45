"""The rate of false negatives among mined negatives, measured on the pairs that have a judgement."""

import math
from typing import Any

from crops_jax.retrieval.metrics import is_relevant

_NORMAL_QUANTILE = 1.959964


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Returns the 95 % score interval of a share (Wilson 1927), which is also valid for shares of 0 and 1.

    (p + z^2 / 2n  -+  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"successes must lie in 0 to trials, and trials be at least 1, found {successes} of {trials}")
    share, z = successes / trials, _NORMAL_QUANTILE
    middle = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # At shares of 0 and 1, rounding could put the bound slightly outside of [0, 1].
    low = 0.0 if successes == 0 else (middle - half) / scale
    return low, 1.0 if successes == trials else (middle + half) / scale


def false_negative_rate(
    judged: list[tuple[str, float]], *, mined: int, relevant_grade: float | None, absent: str | None = None
) -> dict[str, Any]:
    """Returns the share of judged mined negatives that are relevant, with its interval.

    Args:
      judged: the query and the grade of each mined row that has a judgement of split train or without a split.
      mined: the number of mined rows.
      relevant_grade: the minimum relevant grade; None means every grade above 0.
      absent: the reason why there are no judgements.

    Returns:
      A dictionary of "rate", "low", "high", "judged", "relevant", "queries" and "mined". Without judged rows the first
      three are null and "why" has the reason. The pairs of one query are correlated, so the interval is too narrow if
      few queries have many pairs.
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
