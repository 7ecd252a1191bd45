"""Example queries for a report, with the first documents of each system. A hash selects them, not the results."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launch.run_report.sources import Evaluation, Labels

_QUERIES = 3
_SHOWN = 5
_RELEVANT_SHOWN = 5

PERSPECTIVES = {
    "search_log": "Search log: documents that were clicked for the query in the held-out part",
    "query_level": "Query level: documents that were consumed after the query was rephrased in the held-out part",
    "system_level": "System level: documents that the feed showed to users who searched the query in the training part "
    "(labels of cross-perspective training, not of the test; ranks beyond 10 are not kept)",
    "judgements": "Judgements: documents that are judged relevant",
}
_TEST_OF = {"search_log": "ct", "query_level": "qr", "judgements": "judgements"}


@dataclass(frozen=True, kw_only=True)
class Example:
    """One query: its relevant documents with their rank in each system, and the first documents of each system."""

    query: str
    relevant: list[dict[str, Any]]
    """The documents that are shown at once."""
    more_relevant: list[dict[str, Any]]
    """The others, so that every document that a tick marks can be seen."""
    retrieved: dict[str, list[dict[str, Any]]]


def examples(evaluations: Sequence[Evaluation], labels: Sequence[Labels]) -> dict[str, list[Example]]:
    """Returns some example queries for each perspective, with all systems of the evaluations of one SPLIT."""
    retrieved = _by_query(evaluations)
    chosen = {perspective: _test_set_examples(evaluations, retrieved, test) for perspective, test in _TEST_OF.items()}
    chosen["system_level"] = _mined_examples(evaluations, retrieved, labels, "system_level")
    return {perspective: chosen[perspective] for perspective in PERSPECTIVES if chosen.get(perspective)}


def _by_query(evaluations: Sequence[Evaluation]) -> dict[tuple[str, str], dict[str, list[dict[str, Any]]]]:
    """Returns (test, query) -> system -> first documents. Those of BM25 are from the first evaluation.

    The systems on top of an encoder are omitted, because the examples compare encoders.
    """
    grouped: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for position, evaluation in enumerate(evaluations):
        for row in evaluation.retrieved():
            if row["system"] not in ("encoder", "bm25"):
                continue
            system = evaluation.name if row["system"] == "encoder" else "bm25"
            if system != "bm25" or position == 0:
                grouped.setdefault((row["test"], row["query"]), {}).setdefault(system, []).append(row)
    return grouped


def _test_set_examples(evaluations: Sequence[Evaluation], retrieved: Mapping, test: str) -> list[Example]:
    relevant: dict[str, dict[str, dict[str, Any]]] = {}
    for position, evaluation in enumerate(evaluations):
        for row in evaluation.relevant():
            if row["test"] != test:
                continue
            document = relevant.setdefault(row["query"], {}).setdefault(
                row["doc_id"], {"title": row["title"], "grade": row["grade"], "seen": row["seen"], "ranks": {}}
            )
            document["ranks"][evaluation.name] = row["encoder_rank"]
            if position == 0:
                document["ranks"]["bm25"] = row["bm25_rank"]
    return [
        _example(query, list(relevant[query].values()), retrieved.get((test, query), {})) for query in _drawn(relevant)
    ]


def _mined_examples(
    evaluations: Sequence[Evaluation], retrieved: Mapping, labels: Sequence[Labels], source: str
) -> list[Example]:
    """Returns test queries with their positives of `source` in the label tables, which are training pairs."""
    test_queries = {query: systems for (_, query), systems in retrieved.items()}
    pairs: dict[str, set[str]] = {}
    for table in labels:
        for (query, doc_id), label_source in table.cross_pairs(test_queries).items():
            if label_source == source:
                pairs.setdefault(query, set()).add(doc_id)
    chosen = []
    for query in _drawn(pairs):
        systems = {
            name: [{**row, "relevant": row["doc_id"] in pairs[query]} for row in rows]
            for name, rows in test_queries[query].items()
        }
        titles = evaluations[0].titles(pairs[query])
        titles |= {row["doc_id"]: row["title"] for rows in systems.values() for row in rows}
        ranks = {name: {row["doc_id"]: row["rank"] for row in rows} for name, rows in systems.items()}
        positives = [
            {
                "title": titles.get(doc_id, doc_id),
                "grade": None,
                "seen": True,
                "ranks": {name: ranks[name].get(doc_id) for name in ranks},
            }
            for doc_id in sorted(pairs[query])
        ]
        chosen.append(_example(query, positives, systems))
    return chosen


def _example(query: str, documents: list[dict[str, Any]], systems: Mapping[str, list[dict[str, Any]]]) -> Example:
    # The order is by title: in the order of ranks, the documents that are not shown would be those that were missed.
    ordered = [
        {**document, "ranks": {name: document["ranks"][name] for name in _ordered(document["ranks"])}}
        for document in sorted(documents, key=lambda document: document["title"])
    ]
    return Example(
        query=query,
        relevant=ordered[:_RELEVANT_SHOWN],
        more_relevant=ordered[_RELEVANT_SHOWN:],
        retrieved={name: sorted(systems[name], key=lambda row: row["rank"])[:_SHOWN] for name in _ordered(systems)},
    )


def _ordered(names: Iterable[str]) -> list[str]:
    """Returns the names in their order, with BM25 last."""
    return sorted(names, key=lambda name: name == "bm25")


def _drawn(queries: Mapping[str, Any]) -> list[str]:
    return sorted(queries, key=lambda query: hashlib.sha256(query.encode()).hexdigest())[:_QUERIES]
