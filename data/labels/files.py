"""The files of a label table, which are one file or several parts.

The files are LABELS/labels.parquet, or LABELS/labels/part-00000.parquet and so on. Rows are sorted by query and doc_id
within each file and across the files, and all rows of a query are in one file.
"""

import bisect
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops_jax.errors import InputError
from data.backends.connection import Connection, SparkConnection, arrow_batches, is_spark
from data.labels.assign_levels import LABEL_SCHEMA

ROW_GROUP_ROWS = 131_072
"""The default of the number of rows in each row group."""
ROWS_A_PART = 5_000_000
"""The number of rows in each part that Spark writes if the number of parts is None."""

MOST_PARTS = 10_000
"""The maximum number of parts."""
_SORTED_BY = ("query", "doc_id")


def write_labels(
    connection: Connection,
    labels: ibis.Table,
    directory: Path,
    *,
    partitions: int | None = None,
    row_group_rows: int = ROW_GROUP_ROWS,
) -> None:
    """Writes a label table. On the same backend, equal rows make equal bytes.

    DuckDB sorts and writes the rows as a stream, out of core. Each of Spark's executors writes parts into the directory
    itself, so all executors must see it under the same path.

    Args:
      connection: the Ibis backend of `labels`.
      labels: a table with LABEL_SCHEMA, in any order. It is computed several times if it is not cached.
      directory: the directory that has the manifest.
      partitions: the maximum number of files; fewer files are written for few queries. None: DuckDB writes
        labels.parquet, and Spark writes one part for each 5 million rows.
      row_group_rows: the number of rows in each row group and in each batch that is written; DuckDB only.

    Raises:
      InputError: Spark's executors wrote into another file system.
    """
    labels = labels.select(*LABEL_SCHEMA.names)
    if partitions is None and not is_spark(connection):
        write_label_batches(
            _sorted_batches(connection, labels, row_group_rows), directory, row_group_rows=row_group_rows
        )
        return
    rows = int(labels.count().to_pyarrow().as_py()) if is_spark(connection) else 0
    starts = part_starts(labels, partitions or -(-rows // ROWS_A_PART))
    (directory / "labels").mkdir()
    if is_spark(connection):
        _write_on_spark(connection, labels, starts, directory / "labels", rows=rows)
        return
    parts = itertools.groupby(
        _split_at_starts(_sorted_batches(connection, labels, row_group_rows), starts), key=lambda piece: piece[0]
    )
    for part, pieces in parts:
        _write_file((batch for _, batch in pieces), directory / "labels" / _part_name(part), row_group_rows)


def write_label_batches(
    batches: Iterable[pa.RecordBatch], directory: Path, *, row_group_rows: int = ROW_GROUP_ROWS
) -> None:
    """Writes sorted rows to DIRECTORY/labels.parquet, in row groups of a fixed size for any size of the batches."""
    _write_file(batches, directory / "labels.parquet", row_group_rows)


def part_starts(
    labels: ibis.Table, parts: int, *, sampled_queries: int = 10_000, sampled_queries_per_part: int = 100
) -> list[str]:
    """Returns the first query of each part except the first part, in ascending order.

    These queries are quantiles over the rows of a sample of queries. The sample has the queries with the lowest
    SHA-256, so that the result depends only on the rows. The number of parts is lower if few queries have nearly all
    rows.

    Args:
      labels: a table with the column query.
      parts: the maximum number of parts.
      sampled_queries, sampled_queries_per_part: the size of the sample; the larger of the two sizes is used.
    """
    counts = labels.group_by("query").agg(rows=labels.count())
    sample = counts.order_by(counts.query.hexdigest("sha256"), counts.query)
    sample = sample.limit(max(sampled_queries, sampled_queries_per_part * parts)).to_pyarrow().sort_by("query")
    queries, rows = sample["query"].to_pylist(), sample["rows"].to_pylist()
    before = [0, *itertools.accumulate(rows)]
    starts = {bisect.bisect_left(before, before[-1] * part / parts) for part in range(1, parts)}
    return [queries[start] for start in sorted(starts - {0}) if start < len(queries)]


def _sorted_batches(connection: Connection, labels: ibis.Table, rows: int) -> Iterator[pa.RecordBatch]:
    return arrow_batches(connection, labels.order_by(*_SORTED_BY), rows=rows)


def _split_at_starts(batches: Iterable[pa.RecordBatch], starts: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields (part, batch) for sorted batches, which are split at the starts of the parts."""
    part = 0
    for batch in batches:
        while part < len(starts):
            count = pc.sum(pc.less(batch.column("query"), starts[part])).as_py() or 0
            if count == len(batch):
                break
            if count:
                yield part, batch.slice(0, count)
            batch = batch.slice(count)
            part += 1
        yield part, batch


def _write_file(batches: Iterable[pa.RecordBatch], file: Path, row_group_rows: int) -> None:
    with pq.ParquetWriter(file, LABEL_SCHEMA, compression="zstd") as writer:
        pending, rows = [], 0
        for batch in batches:
            pending.append(batch.cast(LABEL_SCHEMA))
            rows += len(batch)
            while rows >= row_group_rows:
                table = pa.Table.from_batches(pending)
                writer.write_table(table.slice(0, row_group_rows), row_group_size=row_group_rows)
                pending = table.slice(row_group_rows).to_batches()
                rows -= row_group_rows
        if rows or not pending:
            writer.write_table(pa.Table.from_batches(pending, LABEL_SCHEMA), row_group_size=row_group_rows)


def _write_on_spark(
    connection: SparkConnection, labels: ibis.Table, starts: list[str], folder: Path, *, rows: int
) -> None:
    rows_with_part = labels.mutate(part=_part(labels.query, starts, 0))
    temporary = folder / "_spark"
    connection.write_parts(rows_with_part, temporary, part="part", parts=len(starts) + 1, sorted_by=_SORTED_BY)
    # Spark omits parts without rows, but no part is without rows, because every start is a query of the table.
    written = sorted(temporary.glob("part-*.parquet")) if temporary.exists() else []
    if sum(pq.read_metadata(file).num_rows for file in written) != rows:
        raise InputError(
            f"{folder}: not all of the {rows} rows that Spark's executors wrote are in it; give an --output on a file "
            "system that this machine and all executors see under the same path"
        )
    for number, file in enumerate(written):
        file.rename(folder / _part_name(number))
    for file in temporary.iterdir():
        file.unlink()
    temporary.rmdir()


def _part(query: ibis.expr.types.StringValue, starts: list[str], first: int) -> ibis.expr.types.IntegerValue:
    """Returns the part of a query by binary search in `starts`, the first queries of the parts after `first`."""
    if not starts:
        return ibis.literal(first, "int32")
    middle = len(starts) // 2
    return ibis.ifelse(
        query < starts[middle],
        _part(query, starts[:middle], first),
        _part(query, starts[middle + 1 :], first + middle + 1),
    )


def _part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"
