"""Example queries for a report, drawn by hash and not by result, with what each system put first."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launch.run_report.sources import Evaluation, Labels

_QUERIES = 3
_SHOWN = 5
_MISSED_SHOWN = 5

PERSPECTIVES = {
    "search_log": "Search log: documents that were clicked for the query in the held-out part",
    "query_level": "Query level: documents that were consumed after the query was rephrased in the held-out part",
    "system_level": "System level: documents that the feed showed to people who asked the query, in the training part "
    "(labels of cross-perspective training, not of the test; ranks beyond 10 are not kept)",
    "judgements": "Judgements: documents that people judged relevant",
}
_TEST_OF = {"search_log": "ct", "query_level": "qr", "judgements": "judgements"}


@dataclass(frozen=True, kw_only=True)
class Example:
    """One query: what should be found, with its rank in each system, and what each system put first."""

    query: str
    wanted: list[dict[str, Any]]
    more_wanted: int
    found: dict[str, list[dict[str, Any]]]


def examples(evaluations: Sequence[Evaluation], labels: Sequence[Labels]) -> dict[str, list[Example]]:
    """Perspective -> some queries, each with all systems of evaluations of one SPLIT."""
    retrieved = _by_query(evaluations)
    chosen = {perspective: _test_set_examples(evaluations, retrieved, test) for perspective, test in _TEST_OF.items()}
    chosen["system_level"] = _mined_examples(evaluations, retrieved, labels, "system_level")
    return {perspective: chosen[perspective] for perspective in PERSPECTIVES if chosen[perspective]}


def _by_query(evaluations: Sequence[Evaluation]) -> dict[tuple[str, str], dict[str, list[dict[str, Any]]]]:
    """(test, query) -> system -> first documents; BM25's of the first evaluation."""
    grouped: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for place, evaluation in enumerate(evaluations):
        for row in evaluation.retrieved():
            system = evaluation.name if row["system"] == "encoder" else "bm25"
            if system != "bm25" or place == 0:
                grouped.setdefault((row["test"], row["query"]), {}).setdefault(system, []).append(row)
    return grouped


def _test_set_examples(evaluations: Sequence[Evaluation], retrieved: Mapping, test: str) -> list[Example]:
    wanted: dict[str, dict[str, dict[str, Any]]] = {}
    for place, evaluation in enumerate(evaluations):
        for row in evaluation.relevant():
            if row["test"] != test:
                continue
            document = wanted.setdefault(row["query"], {}).setdefault(
                row["doc_id"], {"title": row["title"], "grade": row["grade"], "seen": row["seen"], "ranks": {}}
            )
            document["ranks"][evaluation.name] = row["encoder_rank"]
            if place == 0:
                document["ranks"]["bm25"] = row["bm25_rank"]
    return [_example(query, list(wanted[query].values()), retrieved.get((test, query), {})) for query in _drawn(wanted)]


def _mined_examples(
    evaluations: Sequence[Evaluation], retrieved: Mapping, labels: Sequence[Labels], source: str
) -> list[Example]:
    """Queries of the tests for which a label table holds positives of `source`, whose training pairs they are."""
    asked = {query: systems for (_, query), systems in retrieved.items()}
    pairs: dict[str, set[str]] = {}
    for table in labels:
        for (query, doc_id), found in table.cross_pairs(asked).items():
            if found == source:
                pairs.setdefault(query, set()).add(doc_id)
    chosen = []
    for query in _drawn(pairs):
        systems = {
            name: [{**row, "relevant": row["doc_id"] in pairs[query]} for row in rows]
            for name, rows in asked[query].items()
        }
        titles = evaluations[0].titles(pairs[query])
        titles |= {row["doc_id"]: row["title"] for rows in systems.values() for row in rows}
        ranks = {name: {row["doc_id"]: row["rank"] for row in rows} for name, rows in systems.items()}
        wanted = [
            {
                "title": titles.get(doc_id, doc_id),
                "grade": None,
                "seen": True,
                "ranks": {name: ranks[name].get(doc_id) for name in ranks},
            }
            for doc_id in sorted(pairs[query])
        ]
        chosen.append(_example(query, wanted, systems))
    return chosen


def _example(query: str, wanted: list[dict[str, Any]], systems: Mapping[str, list[dict[str, Any]]]) -> Example:
    # By title: in the order of ranks, what was missed would be what is not shown.
    ordered = [
        {**document, "ranks": {name: document["ranks"][name] for name in _ordered(document["ranks"])}}
        for document in sorted(wanted, key=lambda document: document["title"])
    ]
    return Example(
        query=query,
        wanted=ordered[:_MISSED_SHOWN],
        more_wanted=max(0, len(ordered) - _MISSED_SHOWN),
        found={name: sorted(systems[name], key=lambda row: row["rank"])[:_SHOWN] for name in _ordered(systems)},
    )


def _ordered(names: Iterable[str]) -> list[str]:
    """Encoders as they were given, BM25 last."""
    return sorted(names, key=lambda name: name == "bm25")


def _drawn(queries: Mapping[str, Any]) -> list[str]:
    return sorted(queries, key=lambda query: hashlib.sha256(query.encode()).hexdigest())[:_QUERIES]
