"""Evaluations as launch.evaluate writes them, with values made by hand."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from launch.evaluation.files import PER_QUERY, RELEVANT


def write_files(
    directory: Path, *, values: Iterable[tuple], relevant: Iterable[tuple[str, str, int | None, int | None]]
) -> Path:
    """Writes the two files that a comparison reads.

    Args:
      directory: the evaluation.
      values: (system, test, pairs, query, metric, value).
      relevant: (query, doc_id, rank of the encoder, rank of BM25) of relevant judgements.
    """
    directory.mkdir(parents=True, exist_ok=True)
    names = ("system", "test", "pairs", "query", "metric", "value")
    rows = [{**dict(zip(names, row, strict=True)), "seen": False} for row in values]
    pq.write_table(pa.Table.from_pylist(rows, schema=PER_QUERY), directory / "per_query.parquet")
    rows = [
        {
            "test": "judgements",
            "query": query,
            "doc_id": document,
            "title": document,
            "grade": 1.0,
            "encoder_rank": encoder,
            "bm25_rank": bm25,
            "seen": False,
            "perspective": "judgements",
        }
        for query, document, encoder, bm25 in relevant
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=RELEVANT), directory / "relevant.parquet")
    return directory
