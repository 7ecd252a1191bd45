"""Evaluations as launch.evaluate writes them, with values made by hand."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from launch.evaluation.files import PER_QUERY

_NAMES = ("system", "test", "pairs", "query", "metric", "value")


def write_values(directory: Path, values: Iterable[tuple]) -> Path:
    """Writes the file that a comparison reads.

    Args:
      directory: the evaluation.
      values: (system, test, pairs, query, metric, value).
    """
    directory.mkdir(parents=True, exist_ok=True)
    rows = [{**dict(zip(_NAMES, row, strict=True)), "seen": False} for row in values]
    pq.write_table(pa.Table.from_pylist(rows, schema=PER_QUERY), directory / "per_query.parquet")
    return directory
