"""How good one ranking is for one query; equal to ir_measures (trec_eval) on the same run and judgements.

Every function takes the ranking (document ids, best first, none twice) and the judgements (id -> grade; what is not in
it is not relevant, and so is a grade of 0 or less). Ids are any hashable values. Judged documents that are not in the
ranking count: they were missed. A query without a relevant document has 0, as in trec_eval; leave such queries out of
a mean and count them.

    recall_at_k(["b", "a"], {"a": 1, "c": 2}, k=2) == 0.5
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

Ranking = Sequence[Hashable]
Grades = Mapping[Any, float]


def recall_at_k(ranking: Ranking, grades: Grades, *, k: int, relevant_grade: float | None = None) -> float:
    """Of the relevant documents the share that stands among the first k: R@k.

    Args:
      ranking: ids, best first.
      grades: id -> grade.
      k: depth, at least 1.
      relevant_grade: least grade that is relevant; None: every grade above 0.
    """
    hits = _hits(ranking, grades, k=k, relevant_grade=relevant_grade)
    relevant = _relevant(grades, relevant_grade)
    return sum(hits) / relevant if relevant else 0.0


def ndcg_at_k(ranking: Ranking, grades: Grades, *, k: int) -> float:
    """Discounted gain of the first k over that of the best possible order: nDCG@k with linear gains.

    DCG@k = sum over ranks r <= k of max(grade_r, 0) / log2(r + 1)  (Jarvelin and Kekalainen 2002, as in trec_eval).
    """
    _check(ranking, k)
    ideal = _dcg(sorted(grades.values(), reverse=True)[:k])
    return _dcg([grades.get(doc, 0.0) for doc in ranking[:k]]) / ideal if ideal else 0.0


def mrr_at_k(ranking: Ranking, grades: Grades, *, k: int, relevant_grade: float | None = None) -> float:
    """One over the rank of the first relevant document, 0 when there is none among the first k: RR@k."""
    hits = _hits(ranking, grades, k=k, relevant_grade=relevant_grade)
    return 1 / (hits.index(True) + 1) if any(hits) else 0.0


def average_precision(
    ranking: Ranking, grades: Grades, *, k: int | None = None, relevant_grade: float | None = None
) -> float:
    """Mean over all relevant documents of the precision at their ranks, 0 for those not found: AP, or AP@k."""
    hits = _hits(ranking, grades, k=max(1, len(ranking)) if k is None else k, relevant_grade=relevant_grade)
    relevant = _relevant(grades, relevant_grade)
    found, total = 0, 0.0
    for rank, hit in enumerate(hits, start=1):
        if hit:
            found += 1
            total += found / rank
    return total / relevant if relevant else 0.0


def is_relevant(grade: float, relevant_grade: float | None = None) -> bool:
    """Whether a grade counts as relevant: above 0, or at least `relevant_grade` where one is given."""
    return grade > 0 if relevant_grade is None else grade >= relevant_grade


def _hits(ranking: Ranking, grades: Grades, *, k: int, relevant_grade: float | None) -> list[bool]:
    _check(ranking, k)
    return [doc in grades and is_relevant(grades[doc], relevant_grade) for doc in ranking[:k]]


def _relevant(grades: Grades, relevant_grade: float | None) -> int:
    return sum(is_relevant(grade, relevant_grade) for grade in grades.values())


def _dcg(grades: Sequence[float]) -> float:
    return sum(max(grade, 0.0) / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))


def _check(ranking: Ranking, k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, found {k}")
    if len(set(ranking)) != len(ranking):
        raise ValueError("a ranking must not hold a document twice")
