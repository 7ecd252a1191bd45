"""The files of a label table: one, or several that are cut where the table is sorted.

LABELS/labels.parquet, or LABELS/labels/part-00000.parquet and so on. Rows are sorted by query and doc_id, within a
file and from file to file, and all rows of a query lie in one file.
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
ROWS_A_PART = 5_000_000
"""The number of rows in each part that Spark writes if no number of parts is given."""

MOST_PARTS = 10_000
_SORTED_BY = ("query", "doc_id")


def write_labels(
    connection: Connection,
    labels: ibis.Table,
    directory: Path,
    *,
    partitions: int | None = None,
    row_group_rows: int = ROW_GROUP_ROWS,
) -> None:
    """Writes a label table: the same bytes for the same rows, on the same backend.

    DuckDB sorts and writes as a stream, out of core. Spark's executors write a part each, into the directory itself,
    which all of them have to see under its path.

    Args:
      connection: the Ibis backend that `labels` is on.
      labels: LABEL_SCHEMA, in any order; computed several times where it is not cached.
      directory: that of the manifest.
      partitions: how many files, fewer where there are fewer queries. None: DuckDB writes labels.parquet, Spark one
        part for each 5 million rows.
      row_group_rows: rows of a row group, and of a batch on the way to the file; DuckDB only.

    Raises:
      InputError: Spark's executors wrote elsewhere.
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
        _cut(_sorted_batches(connection, labels, row_group_rows), starts), key=lambda piece: piece[0]
    )
    for part, pieces in parts:
        _write_file((batch for _, batch in pieces), directory / "labels" / _part_name(part), row_group_rows)


def write_label_batches(
    batches: Iterable[pa.RecordBatch], directory: Path, *, row_group_rows: int = ROW_GROUP_ROWS
) -> None:
    """Writes DIRECTORY/labels.parquet of rows that are sorted, in row groups of a fixed size, however they arrive."""
    _write_file(batches, directory / "labels.parquet", row_group_rows)


def part_starts(
    labels: ibis.Table, parts: int, *, sampled_queries: int = 10_000, sampled_queries_per_part: int = 100
) -> list[str]:
    """The first query of every part but the first, ascending.

    They are quantiles of the rows of a sample of the queries, those with the least SHA-256, so that they depend on the
    rows alone. There are fewer of them where few queries have most of the rows.

    Args:
      labels: with the column query.
      parts: the maximum number of parts.
      sampled_queries, sampled_queries_per_part: the size of the sample, whichever makes it larger.
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


def _cut(batches: Iterable[pa.RecordBatch], starts: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Sorted batches by the part that they belong to."""
    part = 0
    for batch in batches:
        while part < len(starts):
            here = pc.sum(pc.less(batch.column("query"), starts[part])).as_py() or 0
            if here == len(batch):
                break
            if here:
                yield part, batch.slice(0, here)
            batch = batch.slice(here)
            part += 1
        yield part, batch


def _write_file(batches: Iterable[pa.RecordBatch], file: Path, row_group_rows: int) -> None:
    with pq.ParquetWriter(file, LABEL_SCHEMA, compression="zstd") as writer:
        waiting, rows = [], 0
        for batch in batches:
            waiting.append(batch.cast(LABEL_SCHEMA))
            rows += len(batch)
            while rows >= row_group_rows:
                table = pa.Table.from_batches(waiting)
                writer.write_table(table.slice(0, row_group_rows), row_group_size=row_group_rows)
                waiting = table.slice(row_group_rows).to_batches()
                rows -= row_group_rows
        if rows or not waiting:
            writer.write_table(pa.Table.from_batches(waiting, LABEL_SCHEMA), row_group_size=row_group_rows)


def _write_on_spark(
    connection: SparkConnection, labels: ibis.Table, starts: list[str], folder: Path, *, rows: int
) -> None:
    placed = labels.mutate(part=_part(labels.query, starts, 0))
    spilled = folder / "_spark"
    connection.write_parts(placed, spilled, part="part", parts=len(starts) + 1, sorted_by=_SORTED_BY)
    # Spark leaves out parts without rows, of which there are none: every start is a query of the table.
    written = sorted(spilled.glob("part-*.parquet")) if spilled.exists() else []
    if sum(pq.read_metadata(file).num_rows for file in written) != rows:
        raise InputError(
            f"{folder}: not all of the {rows} rows that Spark's executors wrote are there; give an --output on a file "
            "system that this machine and all executors see under the same path"
        )
    for number, file in enumerate(written):
        file.rename(folder / _part_name(number))
    for file in spilled.iterdir():
        file.unlink()
    spilled.rmdir()


def _part(query: ibis.expr.types.StringValue, starts: list[str], first: int) -> ibis.expr.types.IntegerValue:
    """The part of a query, found by halving: `starts` begin the parts after `first`."""
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
