"""The dev queries of a SPLIT, on which a setting of the evaluation can be chosen; no test query is among them."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crops_jax.artifacts.lineage import input_manifest, line, manifest_or_none
from crops_jax.hashing import sha256_hashes
from crops_jax.retrieval.evaluation import metric_value
from crops_jax.retrieval.metrics import is_relevant
from data.records.arguments import WriteRecordsArguments
from data.records.label_groups import dev_threshold
from data.tables import LogTables
from launch.evaluation.test_sets import clicked_pairs, named_queries, normalised_forms

Grades = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class DevQueries:
    """Dev queries with the grades of their documents. Each query has a relevant document of the corpus."""

    source: str = ""
    """The origin of the grades: "judgements of split dev", "clicks of the log for dev queries", or "judgements of split
    train for dev queries"."""
    metric: str = "ndcg@10"
    """The metric by which a setting is chosen."""
    grades: Grades = field(default_factory=dict)
    relevant_grade: float | None = None
    absent: str = ""
    """The reason why there are no dev queries; empty if there are any."""

    @property
    def queries(self) -> list[str]:
        """Returns the queries in the order of their hashes."""
        return list(self.grades)

    def mean(self, indices: np.ndarray, doc_ids: Any) -> float:
        """Returns the mean of the metric over the queries.

        Args:
          indices: the documents that are retrieved for each of `queries`, by index into doc_ids; -1 is padding.
          doc_ids: the ids of the corpus.
        """
        found = [
            metric_value(
                self.metric,
                [doc_ids[index] for index in map(int, row[row >= 0])],
                grades,
                relevant_grade=self.relevant_grade,
            )
            for row, grades in zip(indices, self.grades.values(), strict=True)
        ]
        return float(np.mean(found))


def read_dev_queries(
    logs: LogTables,
    doc_ids: Iterable[str],
    *,
    run: str,
    limit: int,
    relevant_grade: float | None = None,
) -> DevQueries:
    """Returns the dev queries; without any, `absent` says why.

    They are the queries with judgements of split dev (NDCG@10), if there are any, or else the queries that
    data.write_records puts into the split dev by their hash: those of the log, with what was clicked or liked for them
    (Recall@100), or, if none of these has a click, those with judgements of split train (NDCG@10). A query that a test
    table or a judgement of split test names is never among them.

    Args:
      logs: SPLIT.
      doc_ids: the ids of the corpus. Other documents are omitted, and so are queries without a relevant document.
      run: the run that is evaluated; its records say which share of the queries forms the split dev.
      limit: the maximum number of queries; those with the lowest hashes are taken.
      relevant_grade: the minimum grade of a relevant judgement; None: every grade above 0 is relevant.
    """
    if limit == 0:
        return DevQueries(absent="--dev-queries is 0")
    corpus, tested = frozenset(doc_ids), named_queries(logs)
    judged = _known(_judged(logs, "dev"), corpus, tested, relevant_grade)
    if judged:
        return _of_judgements("judgements of split dev", judged, limit, relevant_grade)
    fraction = _dev_fraction(run)
    clicked = _known(_clicked(logs, fraction, tested), corpus, tested, None)
    if clicked:
        return DevQueries(
            source="clicks of the log for dev queries", metric="recall@100", grades=_first_by_hash(clicked, limit)
        )
    kept_out = _of_dev_share(_judged(logs, "train"), fraction)
    judged = _known(kept_out, corpus, tested, relevant_grade)
    if judged:
        return _of_judgements("judgements of split train for dev queries", judged, limit, relevant_grade)
    return DevQueries(
        absent="no judgement has split = dev, and no query that is not a test query has a click or a judgement and "
        f"belongs to the dev share ({fraction:g}) of the records"
    )


def _of_judgements(source: str, judged: Grades, limit: int, relevant_grade: float | None) -> DevQueries:
    return DevQueries(
        source=source, metric="ndcg@10", grades=_first_by_hash(judged, limit), relevant_grade=relevant_grade
    )


def _of_dev_share(grades: Grades, fraction: float) -> dict[str, Mapping[str, float]]:
    """Returns the queries that the records with this dev share do not train on."""
    queries = sorted(grades)
    is_dev = sha256_hashes(queries) < np.uint64(dev_threshold(fraction))
    return {query: grades[query] for query, inside in zip(queries, is_dev, strict=True) if inside}


def _judged(logs: LogTables, split: str) -> dict[str, dict[str, float]]:
    grades: dict[str, dict[str, float]] = {}
    if "judgements" in logs.names:
        for row in logs.read("judgements", ["query", "doc_id", "grade", "split"]).to_pylist():
            if row["split"] == split:
                grades.setdefault(row["query"], {})[row["doc_id"]] = row["grade"]
    return grades


def _clicked(logs: LogTables, fraction: float, tested: frozenset[str]) -> dict[str, dict[str, float]]:
    if not {"searches", "candidates"} <= logs.names:
        return {}
    forms = normalised_forms(logs)
    queries = sorted(set(forms.values()) - tested - {""})
    is_dev = sha256_hashes(queries) < np.uint64(dev_threshold(fraction))
    dev = {query for query, inside in zip(queries, is_dev, strict=True) if inside}
    grades: dict[str, dict[str, float]] = {}
    for query, doc_id in clicked_pairs(logs, {raw: query for raw, query in forms.items() if query in dev}):
        grades.setdefault(query, {})[doc_id] = 1.0
    return grades


def _dev_fraction(run: str) -> float:
    """Returns the dev share of the records that a run was trained on; that of data.write_records if none are known.

    An exported folder has the run as its input.
    """
    trained = next((link for link in line(manifest_or_none(run), "run") if link["kind"] == "run"), None)
    records = input_manifest(trained, "records")
    found = records["arguments"].get("dev_fraction") if records else None
    return WriteRecordsArguments.dev_fraction if found is None else float(found)


def _known(grades: Grades, corpus: frozenset[str], tested: frozenset[str], relevant_grade: float | None) -> Grades:
    known = {
        query: {doc: grade for doc, grade in documents.items() if doc in corpus}
        for query, documents in grades.items()
        if query not in tested
    }
    return {
        query: documents
        for query, documents in known.items()
        if any(is_relevant(grade, relevant_grade) for grade in documents.values())
    }


def _first_by_hash(grades: Grades, limit: int) -> Grades:
    chosen = sorted(grades, key=lambda query: hashlib.sha256(query.encode()).digest())[:limit]
    return {query: grades[query] for query in chosen}
