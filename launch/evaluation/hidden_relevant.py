"""The test set of hidden relevant documents: those that no search of the whole log showed for the query.

Only the truth of a generated world knows them. A retriever that repeats what the present engine shows finds none.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data.tables.truth import has_truth, read_truth

MAX_QUERIES = 2000
"""The maximum number of queries of the test set. Each can have hundreds of relevant documents."""


def read_hidden_relevant(
    directory: Path | str, queries: Iterable[str], *, max_queries: int = MAX_QUERIES
) -> dict[str, dict[str, float]] | None:
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
    asked = pa.array(sorted(set(queries)), pa.string())
    hidden = pairs.filter(pc.and_(pc.invert(pairs["shown"]), pc.is_in(pairs["query"], value_set=asked)))
    known = pc.unique(hidden["query"]).to_pylist()
    chosen = sorted(known, key=lambda query: hashlib.sha256(query.encode()).digest())[:max_queries]
    hidden = hidden.filter(pc.is_in(hidden["query"], value_set=pa.array(chosen, pa.string())))
    grades: dict[str, dict[str, float]] = {}
    columns = (hidden[name].to_pylist() for name in ("query", "doc_id", "grade"))
    for query, doc_id, grade in zip(*columns, strict=True):
        grades.setdefault(query, {})[doc_id] = grade
    return grades
