"""What an evaluation asks, and what each system's answers are worth query by query.

Queries and pairs that training has seen are told apart from those it has not: a click of the test period that the log
already holds can be remembered, and only the others ask for generalisation. For the pairs, the documents of the other
kind are taken out of the judgements and of the ranking (residual collection).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from crops_jax.retrieval.intervals import Interval, bootstrap_mean, paired_difference
from crops_jax.retrieval.metrics import is_relevant, ndcg_at_k, recall_at_k

PAIRS = ("all", "seen", "unseen")


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One test set. Only documents of the corpus are in `grades`; every query there has a relevant one."""

    name: str
    """"ct", "qr" or "judgements"."""
    metrics: tuple[str, ...]
    """Such as "recall@100" and "ndcg@4"."""
    grades: Mapping[str, Mapping[str, float]]
    """query -> document id -> grade."""
    relevant_grade: float | None = None
    """Least relevant grade; None: above 0."""
    seen_queries: frozenset[str] = frozenset()
    """Queries of the test that occur in the log that training may read."""
    seen_pairs: frozenset[tuple[str, str]] = frozenset()
    """(query, document id) of the test that the log that training may read already says are relevant."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What was left out, and why."""


class Value(NamedTuple):
    """One system's value of one metric for one query."""

    test: str
    pairs: str
    """"all", or only those "seen" or "unseen"."""
    query: str
    metric: str
    value: float
    seen: bool
    """Whether the query is one of seen_queries."""


def values(test: HeldOut, rankings: Mapping[str, Sequence[str]]) -> Iterator[Value]:
    """Every metric of every query, over all pairs and over the seen and the unseen ones.

    Args:
      test: what is asked.
      rankings: query -> document ids, best first. Deeper than the deepest metric, or the residual rankings are short.
    """
    for query in sorted(test.grades):
        for pairs in PAIRS:
            grades, ranking = _residual(test, query, rankings[query], pairs)
            if not any(is_relevant(grade, test.relevant_grade) for grade in grades.values()):
                continue
            for metric in test.metrics:
                value = metric_value(metric, ranking, grades, relevant_grade=test.relevant_grade)
                yield Value(test.name, pairs, query, metric, value, query in test.seen_queries)


def metric_value(
    metric: str, ranking: Sequence[str], grades: Mapping[str, float], *, relevant_grade: float | None = None
) -> float:
    """The value of "recall@K" or "ndcg@K"."""
    name, _, depth = metric.partition("@")
    if name == "recall":
        return recall_at_k(ranking, grades, k=int(depth), relevant_grade=relevant_grade)
    if name == "ndcg":
        return ndcg_at_k(ranking, grades, k=int(depth))
    raise ValueError(f"no metric {metric}; there are recall@K and ndcg@K")


def figures(
    found: Sequence[Value], *, pairs: str = "all", seen: bool | None = None, samples: int = 2000
) -> dict[str, dict[str, Interval]]:
    """test -> metric -> mean over queries with its bootstrap interval.

    Args:
      found: of one system.
      pairs: which pairs.
      seen: only the seen queries, only the unseen ones, or all.
      samples: bootstrap samples.
    """
    return {
        test: {metric: bootstrap_mean(list(by_query.values()), samples=samples) for metric, by_query in metrics.items()}
        for test, metrics in _by_query(found, pairs=pairs, seen=seen).items()
    }


def differences(
    first: Sequence[Value], second: Sequence[Value], *, samples: int = 2000
) -> dict[str, dict[str, Interval]]:
    """test -> metric -> mean of first - second over the queries that both have, with its paired bootstrap interval."""
    one, other = _by_query(first), _by_query(second)
    return {
        test: {
            metric: _difference(one[test][metric], other[test][metric], samples)
            for metric in metrics
            if metric in other[test]
        }
        for test, metrics in one.items()
        if test in other
    }


def _difference(one: Mapping[str, float], other: Mapping[str, float], samples: int) -> Interval:
    shared = [query for query in one if query in other]
    return paired_difference([one[query] for query in shared], [other[query] for query in shared], samples=samples)


def _by_query(
    found: Sequence[Value], *, pairs: str = "all", seen: bool | None = None
) -> dict[str, dict[str, dict[str, float]]]:
    grouped: dict[str, dict[str, dict[str, float]]] = {}
    for value in found:
        if value.pairs == pairs and (seen is None or value.seen == seen):
            grouped.setdefault(value.test, {}).setdefault(value.metric, {})[value.query] = value.value
    return grouped


def _residual(
    test: HeldOut, query: str, ranking: Sequence[str], pairs: str
) -> tuple[Mapping[str, float], Sequence[str]]:
    grades = test.grades[query]
    if pairs == "all":
        return grades, ranking
    relevant = {doc for doc, grade in grades.items() if is_relevant(grade, test.relevant_grade)}
    other = {doc for doc in relevant if ((query, doc) in test.seen_pairs) != (pairs == "seen")}
    kept = {doc: grade for doc, grade in grades.items() if doc not in other}
    return kept, [doc for doc in ranking if doc not in other]
