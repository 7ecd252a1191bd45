"""The files of EVAL, the tables with their columns.

metrics.json       every figure
per_query.parquet  one value a (system, test, pairs, query, metric): what paired intervals are made from
retrieved.parquet  the first documents of every test query, by system, with grade and relevance
relevant.parquet   every relevant document, and the rank at which each system found it (null: not among those searched)
index/             what the encoder is served from, with the ids and titles of its documents
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax import artifacts
from crops_jax.retrieval.evaluation import TestSet, Value
from crops_jax.retrieval.metrics import is_relevant
from launch.corpus.documents import Corpus
from launch.evaluation.searching import SearchResults

PER_QUERY = pa.schema(
    [
        ("system", pa.string()),
        ("test", pa.string()),
        ("pairs", pa.string()),
        ("query", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("seen", pa.bool_()),
    ]
)
RETRIEVED = pa.schema(
    [
        ("test", pa.string()),
        ("query", pa.string()),
        ("system", pa.string()),
        ("rank", pa.int32()),
        ("doc_id", pa.string()),
        ("title", pa.string()),
        ("score", pa.float32()),
        ("grade", pa.float64()),
        ("relevant", pa.bool_()),
        ("perspective", pa.string()),
    ]
)
RELEVANT = pa.schema(
    [
        ("test", pa.string()),
        ("query", pa.string()),
        ("doc_id", pa.string()),
        ("title", pa.string()),
        ("grade", pa.float64()),
        ("encoder_rank", pa.int32()),
        ("bm25_rank", pa.int32()),
        ("seen", pa.bool_()),
        ("perspective", pa.string()),
    ]
)
# Which perspective of the log made a document one that should be found.
_PERSPECTIVE = {
    "ct": "search_log",
    "qr": "query_level",
    "judgements": "judgements",
    "hidden_relevant": "truth",
    "truth": "truth",
}
_SHOWN = 10


def write_evaluation(
    directory: Path,
    metrics: Mapping[str, Any],
    per_query: Mapping[str, Sequence[Value]],
    tests: Sequence[TestSet],
    results: SearchResults,
) -> None:
    """Writes all files of EVAL.

    Args:
      directory: is there, and empty.
      metrics: plain JSON without NaN.
      per_query: the values of each system; those of the index are not written.
      tests: the test sets.
      results: what the systems retrieve for their queries.
    """
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    artifacts.write_text(directory / "metrics.json", text)
    corpus, answers = results.corpus, results.answers()
    rows = ({"system": system, **value._asdict()} for system in answers for value in per_query[system])
    _write(directory / "per_query.parquet", rows, PER_QUERY)
    rows = (row for test in tests for row in _retrieved(test, corpus, answers))
    _write(directory / "retrieved.parquet", rows, RETRIEVED)
    titles = dict(zip(corpus.doc_ids, corpus.titles, strict=True))
    rows = (row for test in tests for row in _relevant(test, titles, results.rankings))
    _write(directory / "relevant.parquet", rows, RELEVANT)
    results.index.save(directory / "index")
    documents = {"doc_id": pa.array(corpus.doc_ids, pa.string()), "title": pa.array(corpus.titles, pa.string())}
    pq.write_table(pa.table(documents), directory / "index" / "documents.parquet")


def _retrieved(test: TestSet, corpus: Corpus, answers: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for query in sorted(test.grades):
        for system, of_query in answers.items():
            scores, indices = (part[:_SHOWN] for part in of_query[query])
            for rank, at in enumerate(map(int, indices[indices >= 0]), start=1):
                grade = test.grades[query].get(corpus.doc_ids[at])
                relevant = grade is not None and is_relevant(grade, test.relevant_grade)
                yield {
                    "test": test.name,
                    "query": query,
                    "system": system,
                    "rank": rank,
                    "doc_id": corpus.doc_ids[at],
                    "title": corpus.titles[at],
                    "score": float(scores[rank - 1]),
                    "grade": grade,
                    "relevant": relevant,
                    "perspective": _PERSPECTIVE[test.name] if relevant else None,
                }


def _relevant(test: TestSet, titles: Mapping[str, str], rankings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for query in sorted(test.grades):
        ranks = {
            system: {doc: rank for rank, doc in enumerate(rankings[system][query], start=1)}
            for system in ("encoder", "bm25")
        }
        for doc, grade in sorted(test.grades[query].items()):
            if is_relevant(grade, test.relevant_grade):
                yield {
                    "test": test.name,
                    "query": query,
                    "doc_id": doc,
                    "title": titles[doc],
                    "grade": grade,
                    "encoder_rank": ranks["encoder"].get(doc),
                    "bm25_rank": ranks["bm25"].get(doc),
                    "seen": (query, doc) in test.seen_pairs,
                    "perspective": _PERSPECTIVE[test.name],
                }


def _write(file: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), file, compression="zstd")
