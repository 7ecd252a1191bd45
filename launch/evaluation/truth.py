"""The test sets that only the truth of a generated world can give.

Hidden relevant documents are those that no search of the whole log showed for the query. A retriever that repeats what
the present engine shows finds none. True grades are the grades of all relevant documents of the judged queries, whether
somebody judged them or not. Metrics count documents without a judgement as not relevant, and so favour the systems from
whose rankings the judged documents were taken; by true grades no system is favoured.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data.tables.truth import has_truth, read_truth

MAX_QUERIES = 2000
"""The maximum number of queries with hidden relevant documents. Each can have hundreds of them."""

Grades = dict[str, dict[str, float]]


def read_hidden_relevant(
    directory: Path | str, queries: Iterable[str], *, max_queries: int = MAX_QUERIES
) -> Grades | None:
    """Returns query -> document id -> grade of the relevant documents never shown; None where there is no truth.

    Args:
      directory: SPLIT, with the truth that data.hold_out copied.
      queries: the queries of the other test sets. If more than `max_queries` of them have hidden documents, those with
        the lowest SHA-256 are taken.
      max_queries: the maximum number of queries.

    Raises:
      InputError: the truth cannot be read.
    """
    if not has_truth(directory):
        return None
    pairs = read_truth(directory)
    hidden = _of_queries(pairs.filter(pc.invert(pairs["shown"])), queries)
    known = pc.unique(hidden["query"]).to_pylist()
    chosen = sorted(known, key=lambda query: hashlib.sha256(query.encode()).digest())[:max_queries]
    return _grades(_of_queries(hidden, chosen))


def read_true_grades(directory: Path | str, queries: Iterable[str]) -> Grades | None:
    """Returns query -> document id -> grade of all relevant documents; None where there is no truth.

    Args:
      directory: SPLIT, with the truth that data.hold_out copied.
      queries: the judged queries. The result lacks those of which the truth knows no relevant document.

    Raises:
      InputError: the truth cannot be read.
    """
    return _grades(_of_queries(read_truth(directory), queries)) if has_truth(directory) else None


def _of_queries(pairs: pa.Table, queries: Iterable[str]) -> pa.Table:
    return pairs.filter(pc.is_in(pairs["query"], value_set=pa.array(sorted(set(queries)), pa.string())))


def _grades(pairs: pa.Table) -> Grades:
    grades: Grades = {}
    columns = (pairs[name].to_pylist() for name in ("query", "doc_id", "grade"))
    for query, doc_id, grade in zip(*columns, strict=True):
        grades.setdefault(query, {})[doc_id] = grade
    return grades
