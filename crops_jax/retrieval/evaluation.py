"""Test sets of an evaluation, and the metrics of each system for each query.

Metrics distinguish queries and pairs that training has seen from unseen ones: a model can memorise a click of the test
period that the log already has, and only unseen ones measure generalisation. For the metrics of seen pairs, unseen ones
are removed from the judgements and from the ranking, and vice versa (residual collection).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from crops_jax.retrieval.intervals import Interval, bootstrap_mean, paired_difference
from crops_jax.retrieval.metrics import is_relevant, judged_at_k, ndcg_at_k, recall_at_k

PAIRS = ("all", "seen", "unseen")


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """A test set. `grades` has only documents of the corpus, and every query in it has a relevant document."""

    name: str
    """"ct", "qr", "judgements", "hidden_relevant" or "truth"."""
    metrics: tuple[str, ...]
    """The names of the metrics, such as "recall@100" and "ndcg@4"."""
    grades: Mapping[str, Mapping[str, float]]
    """The grade of each judged document: query -> document id -> grade."""
    relevant_grade: float | None = None
    """The minimum grade of a relevant document; None: every grade above 0 is relevant."""
    seen_queries: frozenset[str] = frozenset()
    """The queries of the test set that occur in the log that training can read."""
    seen_pairs: frozenset[tuple[str, str]] = frozenset()
    """The pairs (query, document id) of the test set that are already relevant in the log that training can read."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """The numbers of queries and pairs that were omitted, by reason."""


class Value(NamedTuple):
    """The value of one metric of one system for one query."""

    test: str
    pairs: str
    """"all", or only those "seen" or "unseen"."""
    query: str
    metric: str
    value: float
    seen: bool
    """Whether the query is in seen_queries."""


def values(test: TestSet, rankings: Mapping[str, Sequence[str]]) -> Iterator[Value]:
    """Yields every metric of every query over all pairs, over the seen pairs and over the unseen pairs.

    Args:
      test: the test set.
      rankings: query -> document ids, best first. They should be longer than the K of each metric, because documents
        are removed from residual rankings.
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
    """Returns the value of the metric "recall@K", "ndcg@K" or "judged@K" for one query.

    Raises ValueError if no metric has this name.
    """
    name, _, depth = metric.partition("@")
    if name == "recall":
        return recall_at_k(ranking, grades, k=int(depth), relevant_grade=relevant_grade)
    if name == "ndcg":
        return ndcg_at_k(ranking, grades, k=int(depth))
    if name == "judged":
        return judged_at_k(ranking, grades, k=int(depth))
    raise ValueError(f"no metric {metric}; the metrics are recall@K, ndcg@K and judged@K")


def figures(
    query_values: Sequence[Value], *, pairs: str = "all", seen: bool | None = None, samples: int = 2000
) -> dict[str, dict[str, Interval]]:
    """Returns the mean over queries with its bootstrap interval: test -> metric -> interval.

    Args:
      query_values: the values of one system.
      pairs: the pairs, one of PAIRS.
      seen: True for seen queries only, False for unseen queries only, None for all queries.
      samples: the number of bootstrap samples.
    """
    return {
        test: {metric: bootstrap_mean(list(by_query.values()), samples=samples) for metric, by_query in metrics.items()}
        for test, metrics in _by_query(query_values, pairs=pairs, seen=seen).items()
    }


def differences(
    first: Sequence[Value], second: Sequence[Value], *, pairs: str = "all", samples: int = 2000
) -> dict[str, dict[str, Interval]]:
    """Returns test -> metric -> the mean of first - second over the queries of both, with its paired interval.

    Args:
      first: the values of one system.
      second: the values of the other system.
      pairs: the pairs, one of PAIRS.
      samples: the number of bootstrap samples.
    """
    first_values, second_values = _by_query(first, pairs=pairs), _by_query(second, pairs=pairs)
    return {
        test: {
            metric: _difference(first_values[test][metric], second_values[test][metric], samples)
            for metric in metrics
            if metric in second_values[test]
        }
        for test, metrics in first_values.items()
        if test in second_values
    }


def _difference(first: Mapping[str, float], second: Mapping[str, float], samples: int) -> Interval:
    shared = [query for query in first if query in second]
    return paired_difference([first[query] for query in shared], [second[query] for query in shared], samples=samples)


def _by_query(
    query_values: Sequence[Value], *, pairs: str = "all", seen: bool | None = None
) -> dict[str, dict[str, dict[str, float]]]:
    grouped: dict[str, dict[str, dict[str, float]]] = {}
    for value in query_values:
        if value.pairs == pairs and (seen is None or value.seen == seen):
            grouped.setdefault(value.test, {}).setdefault(value.metric, {})[value.query] = value.value
    return grouped


def _residual(
    test: TestSet, query: str, ranking: Sequence[str], pairs: str
) -> tuple[Mapping[str, float], Sequence[str]]:
    grades = test.grades[query]
    if pairs == "all":
        return grades, ranking
    relevant = {doc for doc, grade in grades.items() if is_relevant(grade, test.relevant_grade)}
    removed = {doc for doc in relevant if ((query, doc) in test.seen_pairs) != (pairs == "seen")}
    kept = {doc: grade for doc, grade in grades.items() if doc not in removed}
    return kept, [doc for doc in ranking if doc not in removed]
