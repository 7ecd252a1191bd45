"""The rows of an Ibis table in order, some thousands in memory at a time."""

from collections.abc import Iterator

import ibis
import pyarrow as pa


def arrow_batches(connection, table: ibis.Table, *, rows: int) -> Iterator[pa.RecordBatch]:
    """Record batches of about `rows` rows, on Spark fewer, in the table's order.

    The connection is busy until the last one is taken. On DuckDB the result is kept in the backend first, which spills
    what does not fit in memory. Ibis's own to_pyarrow_batches calls a method that DuckDB 2.0 no longer has, and on
    Spark it collects the whole.
    """
    if connection.name == "pyspark":
        yield from connection.stream(table)
        return
    name = ibis.util.gen_name("streamed")
    connection.create_table(name, table, temp=True)
    try:
        yield from connection.con.table(name).to_arrow_reader(rows)
    finally:
        connection.drop_table(name)
