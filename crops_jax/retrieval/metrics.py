"""Metrics of one ranking for one query. They equal those of ir_measures (trec_eval) on the same run and judgements.

Every function takes the ranking (distinct document ids, best first) and the judgements (id -> grade). A document
without a grade is not relevant, and neither is one with a grade of 0 or less. Ids can be any hashable values. Judged
documents that are not in the ranking count as missed. A query without a relevant document has the value 0, as in
trec_eval; omit such queries from a mean, and report their number.

    recall_at_k(["b", "a"], {"a": 1, "c": 2}, k=2) == 0.5
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

Ranking = Sequence[Hashable]
Grades = Mapping[Any, float]


def recall_at_k(ranking: Ranking, grades: Grades, *, k: int, relevant_grade: float | None = None) -> float:
    """Returns the share of the relevant documents that are among the first k: R@k.

    Args:
      ranking: document ids, best first.
      grades: the judgements, id -> grade.
      k: the number of ranks that count, at least 1.
      relevant_grade: the minimum grade of a relevant document; None: every grade above 0 is relevant.
    """
    hits = _hits(ranking, grades, k=k, relevant_grade=relevant_grade)
    relevant = _relevant(grades, relevant_grade)
    return sum(hits) / relevant if relevant else 0.0


def ndcg_at_k(ranking: Ranking, grades: Grades, *, k: int) -> float:
    """Returns the discounted gain of the first k, divided by that of the best order: NDCG@k with linear gains.

    DCG@k = sum over ranks r <= k of max(grade_r, 0) / log2(r + 1)  (Jarvelin and Kekalainen 2002, as in trec_eval).
    """
    _check(ranking, k)
    ideal = _dcg(sorted(grades.values(), reverse=True)[:k])
    return _dcg([grades.get(doc, 0.0) for doc in ranking[:k]]) / ideal if ideal else 0.0


def mrr_at_k(ranking: Ranking, grades: Grades, *, k: int, relevant_grade: float | None = None) -> float:
    """Returns 1 / the rank of the first relevant document, or 0 if none is among the first k: RR@k."""
    hits = _hits(ranking, grades, k=k, relevant_grade=relevant_grade)
    return 1 / (hits.index(True) + 1) if any(hits) else 0.0


def judged_at_k(ranking: Ranking, grades: Grades, *, k: int) -> float:
    """Returns the share of the first k documents that have a grade, whatever it is: Judged@k.

    Metrics count documents without a grade as not relevant, so they favour the rankings that were judged. Of a ranking
    of fewer than k documents all count, as in ir_measures.
    """
    _check(ranking, k)
    first = ranking[:k]
    return sum(document in grades for document in first) / len(first) if first else 0.0


def average_precision(
    ranking: Ranking, grades: Grades, *, k: int | None = None, relevant_grade: float | None = None
) -> float:
    """Returns the mean over relevant documents of the precision at their ranks, 0 for missed ones: AP, or AP@k."""
    hits = _hits(ranking, grades, k=max(1, len(ranking)) if k is None else k, relevant_grade=relevant_grade)
    relevant = _relevant(grades, relevant_grade)
    hits_so_far, total = 0, 0.0
    for rank, hit in enumerate(hits, start=1):
        if hit:
            hits_so_far += 1
            total += hits_so_far / rank
    return total / relevant if relevant else 0.0


def is_relevant(grade: float, relevant_grade: float | None = None) -> bool:
    """Returns whether a grade is relevant: at least `relevant_grade`, or above 0 if that is None."""
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
