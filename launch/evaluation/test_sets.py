"""The test sets of a SPLIT: later clicks, later reformulations and judgements of split = test; in a generated
world also the hidden relevant documents and the true grades. Nothing else of the held-out part is read.
"""

import hashlib
from collections.abc import Iterable, Mapping

import ibis
import pyarrow as pa

from crops_jax.errors import InputError
from crops_jax.retrieval.evaluation import TestSet
from crops_jax.retrieval.metrics import is_relevant
from crops_jax.text import normalise_query
from data.tables import LogTables
from launch.evaluation.truth import read_hidden_relevant, read_true_grades

_TABLES = {"ct": "test_clicks", "qr": "test_reformulations", "judgements": "judgements"}
_METRICS = {
    "ct": ("recall@10", "recall@100", "ndcg@10"),
    "qr": ("recall@10", "recall@100", "ndcg@10"),
    "judgements": ("ndcg@4", "ndcg@10", "recall@10", "recall@100", "judged@4"),
    "hidden_relevant": ("recall@10", "recall@100"),
    "truth": ("ndcg@4", "ndcg@10"),
}


def read_test_sets(
    logs: LogTables, doc_ids: Iterable[str], *, relevant_grade: float | None = None
) -> tuple[list[TestSet], dict[str, str]]:
    """The test sets that are there, and for each that is not, why.

    Documents that are not in the corpus are left out and counted (nobody could find them), and so are queries that
    then have no relevant document.

    Args:
      logs: of data.hold_out, or any log tables with a test table or judgements of split = test.
      doc_ids: of the corpus.
      relevant_grade: least relevant grade of judgements; None: above 0.

    Raises:
      InputError: there is no test set at all.
    """
    corpus = frozenset(doc_ids)
    judged: dict[str, dict[str, dict[str, float]]] = {}
    absent: dict[str, str] = {}
    for name, table in _TABLES.items():
        pairs = _pairs(logs, name, table)
        if isinstance(pairs, str):
            absent[name] = pairs
        else:
            judged[name] = pairs
    if not judged:
        raise InputError(
            f"{logs.path}: nothing to evaluate: {'; '.join(absent.values())}. Make them with data.hold_out"
        )
    asked = {query for grades in judged.values() for query in grades}
    if hidden := read_hidden_relevant(logs.path, asked):
        judged["hidden_relevant"] = hidden
    if true_grades := read_true_grades(logs.path, judged.get("judgements", ())):
        judged["truth"] = true_grades
    seen_queries, seen_pairs = _seen(logs, asked)
    return [
        _test_set(name, grades, corpus, seen_queries, seen_pairs, relevant_grade if name == "judgements" else None)
        for name, grades in judged.items()
    ], absent


def named_queries(logs: LogTables) -> frozenset[str]:
    """Returns every query that a test table or a judgement of split = test names, measured or not."""
    queries = {
        query
        for table in ("test_clicks", "test_reformulations")
        if table in logs.names
        for query in logs.read(table, ["query"])["query"].to_pylist()
    }
    if "judgements" in logs.names:
        judged = logs.read("judgements", ["query", "split"]).to_pylist()
        queries |= {row["query"] for row in judged if row["split"] == "test"}
    return frozenset(queries)


def log_queries(logs: LogTables, *, without: Iterable[str], limit: int = 256) -> list[str]:
    """Normalised queries of the log itself, none of `without`: what a search setting may be chosen on."""
    if "searches" in logs.names:
        raw = _distinct(logs.connect().table("searches").query)
    elif "judgements" in logs.names:
        judged = logs.read("judgements", ["query", "split"]).to_pylist()
        raw = [row["query"] for row in judged if row["split"] not in (None, "test")]
    else:
        raw = []
    excluded = set(without)
    queries = {normalise_query(query) for query in raw} - excluded - {""}
    # By hash and not by alphabet: a sample of all of them, and the same one each time.
    return sorted(queries, key=lambda query: hashlib.sha256(query.encode()).digest())[:limit]


def _pairs(logs: LogTables, name: str, table: str) -> dict[str, dict[str, float]] | str:
    if table not in logs.names:
        return f"there is no table {table}"
    grades: dict[str, dict[str, float]] = {}
    if name != "judgements":
        for row in logs.read(table, ["query", "doc_id"]).to_pylist():
            grades.setdefault(row["query"], {})[row["doc_id"]] = 1.0
        return grades or f"table {table} is empty"
    for row in logs.read(table, ["query", "doc_id", "grade", "split"]).to_pylist():
        if row["split"] == "test":
            grades.setdefault(row["query"], {})[row["doc_id"]] = row["grade"]
    return grades or "no judgement has split = test"


def _test_set(
    name: str,
    judged: dict[str, dict[str, float]],
    corpus: frozenset[str],
    seen_queries: frozenset[str],
    seen_pairs: frozenset[tuple[str, str]],
    relevant_grade: float | None,
) -> TestSet:
    known = {query: {doc: g for doc, g in docs.items() if doc in corpus} for query, docs in judged.items()}
    grades = {
        query: docs for query, docs in known.items() if any(is_relevant(g, relevant_grade) for g in docs.values())
    }
    relevant = {
        (query, doc) for query, docs in grades.items() for doc, g in docs.items() if is_relevant(g, relevant_grade)
    }
    counts = {
        "queries": len(grades),
        "relevant_pairs": len(relevant),
        "seen_queries": len(seen_queries & grades.keys()),
        "unseen_queries": len(grades.keys() - seen_queries),
        "seen_pairs": len(relevant & seen_pairs),
        "unseen_pairs": len(relevant - seen_pairs),
        "unknown_documents": len({doc for docs in judged.values() for doc in docs} - corpus),
        "unknown_pairs": sum(doc not in corpus for docs in judged.values() for doc in docs),
        "queries_without_known_relevant": len(judged) - len(grades),
    }
    return TestSet(
        name=name,
        metrics=_METRICS[name],
        grades=grades,
        relevant_grade=relevant_grade,
        seen_queries=seen_queries & grades.keys(),
        seen_pairs=seen_pairs & relevant,
        counts=counts,
    )


def _seen(logs: LogTables, asked: set[str]) -> tuple[frozenset[str], frozenset[tuple[str, str]]]:
    """Returns the test queries that occur in the log, and the pairs that were clicked or liked there.

    Judgements outside split = test are something that training may read, too.
    """
    # Queries are compared in their normalised form, which only Python has; few distinct ones belong to the test.
    forms = {raw: query for raw, query in normalised_forms(logs).items() if query in asked}
    queries, pairs = set(forms.values()), clicked_pairs(logs, forms)
    if "judgements" in logs.names:
        for row in logs.read("judgements", ["query", "doc_id", "grade", "split"]).to_pylist():
            if row["split"] != "test" and row["query"] in asked:
                queries.add(row["query"])
                if row["grade"] > 0:
                    pairs.add((row["query"], row["doc_id"]))
    return frozenset(queries), frozenset(pairs)


def normalised_forms(logs: LogTables) -> dict[str, str]:
    """Returns the distinct queries of the log, each with its normalised form; none if the log has no searches."""
    if "searches" not in logs.names:
        return {}
    return {raw: normalise_query(raw) for raw in _distinct(logs.connect().table("searches").query)}


def clicked_pairs(logs: LogTables, forms: Mapping[str, str]) -> set[tuple[str, str]]:
    """Returns the pairs (query, document id) that were clicked or liked in the log.

    Args:
      logs: the log tables.
      forms: the queries to look for as the log has them, each with the form in which it is returned.
    """
    if not {"searches", "candidates"} <= logs.names or not forms:
        return set()
    connection = logs.connect()
    searches, candidates = connection.table("searches"), connection.table("candidates")
    wanted = ibis.memtable(pa.table({"query": list(forms)}))
    chosen = candidates.filter(candidates.clicked.fill_null(False) | candidates.liked.fill_null(False))
    clicked = chosen.join(searches.semi_join(wanted, "query"), "search_id").select("query", "doc_id").distinct()
    return {(forms[row["query"]], row["doc_id"]) for row in clicked.to_pyarrow().to_pylist()}


def _distinct(column: ibis.expr.types.StringColumn) -> list[str]:
    return column.as_table().distinct().to_pyarrow().column(0).to_pylist()
