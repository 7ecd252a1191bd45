"""Equal scores in rankings: how much a figure depends on their order, which says nothing about a retriever.

Documents with equal scores are ranked by their ids. An encoder that gives every text the same vector is ranked by ids
alone, and could reach any value.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from crops_jax.retrieval.evaluation import TestSet, metric_value
from crops_jax.retrieval.metrics import is_relevant


class TiedFigure(NamedTuple):
    """The mean of a metric over the queries of a test in the worst and in the best order of equal scores."""

    tied_queries: int
    """The queries whose scores at rank k, the cut of the metric, and at rank k + 1 are equal."""
    worst: float
    best: float


def tied_figures(
    tests: Sequence[TestSet],
    answers: Mapping[str, tuple[np.ndarray, np.ndarray]],
    doc_ids: Sequence[str],
) -> dict[str, dict[str, TiedFigure]]:
    """Returns test -> metric -> the range of its figure, for the metrics with ties at the cut or with a range.

    "judged@K" has none, because it measures the judgements.

    Args:
      tests: the test sets; all their pairs count.
      answers: query -> (scores, indices into doc_ids), best first; -1 fills a list that is shorter.
      doc_ids: the ids of the corpus.
    """
    found: dict[str, dict[str, TiedFigure]] = {}
    for test in (test for test in tests if test.grades):
        for metric in test.metrics:
            name, _, depth = metric.partition("@")
            if name == "judged":
                continue
            k = int(depth)
            tied, ranges = 0, []
            for query, grades in test.grades.items():
                scores, indices = (values[answers[query][1] >= 0] for values in answers[query])
                tied += len(scores) > k and scores[k - 1] == scores[k]
                # What is behind the equal scores at the cut does not matter.
                others = np.flatnonzero(scores[1:] != scores[:-1]) + 1
                end = int(others[others >= k][0]) if others.size and others[-1] >= k else len(scores)
                ranking = [doc_ids[int(index)] for index in indices[:end]]
                documents = end if end < len(scores) else len(doc_ids)
                grade = test.relevant_grade
                orders = worst_and_best(ranking, scores[:end], grades, k=k, documents=documents, relevant_grade=grade)
                ranges.append([metric_value(metric, order, grades, relevant_grade=grade) for order in orders])
            worst, best = np.mean(ranges, axis=0).tolist()
            if tied or worst < best:
                found.setdefault(test.name, {})[metric] = TiedFigure(int(tied), worst, best)
    return found


def worst_and_best(
    ranking: Sequence[str],
    scores: np.ndarray,
    grades: Mapping[str, float],
    *,
    k: int,
    documents: int,
    relevant_grade: float | None = None,
) -> tuple[list[Any], list[Any]]:
    """Returns the ranking with equal scores in the order of ascending grades, and in that of descending grades.

    If the equal scores reach the end of the ranking and the corpus has more documents, those may have the same score:
    in the worst order they come first among them, as far as they are not relevant, and in the best order the relevant
    ones do. So the range may be wider than the true one, and is never narrower.

    Args:
      ranking: document ids, best first. scores: the score of each.
      grades: the judgements of the query.
      k: the cut, below which nothing matters.
      documents: the number of documents of the corpus.
      relevant_grade: the minimum grade of a relevant document; None: every grade above 0 is relevant.
    """
    if len(scores) < 2 or (scores[1:] != scores[:-1]).all():
        return list(ranking), list(ranking)
    worst: list[Any] = []
    best: list[Any] = []
    for score, group in itertools.groupby(zip(scores.tolist(), ranking, strict=True), lambda pair: pair[0]):
        tied = sorted((document for _, document in group), key=lambda document: grades.get(document, 0.0))
        if score == scores[-1] and len(tied) > 1 and len(ranking) < documents:
            absent = grades.keys() - set(ranking)
            relevant = sorted(name for name in absent if is_relevant(grades[name], relevant_grade))
            others = documents - len(ranking) - len(relevant)
            worst += [("another document", number) for number in range(min(k, others))]
            best += sorted([*tied, *relevant], key=lambda document: grades.get(document, 0.0), reverse=True)
        else:
            best += reversed(tied)
        worst += tied
    return worst, best
