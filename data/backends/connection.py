"""The connection to what runs the joins of mining: DuckDB on one machine, or Spark on many. The expressions are equal.

connection = connect(logs, backend="pyspark", spark_master="local[4]")
connection.table("searches")                             # one view a log table
connection.create_table("scores", arrow_table, temp=True)
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeGuard, cast

import ibis
import pyarrow as pa

from data.tables import LogTables

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend as DuckDBBackend
    from ibis.backends.sql import SQLBackend

    from data.backends.spark_tables import SparkTables

Connection: TypeAlias = "SQLBackend"
"""The type that `connect` returns: tables in DuckDB or in Spark."""
DuckDBConnection: TypeAlias = "DuckDBBackend"
"""The type that data.tables.LogTables.connect returns."""
SparkConnection: TypeAlias = "SparkTables"
"""The type that data.backends.spark_tables.connect_spark returns."""

LOCAL_MASTER = "local[*]"
"""Spark inside this process's machine, a thread a core."""


def connect(
    logs: LogTables,
    *,
    backend: Literal["duckdb", "pyspark"] = "duckdb",
    memory_limit: str | None = None,
    spark_master: str = LOCAL_MASTER,
) -> Connection:
    """An Ibis backend with one view a log table: every schema column in its type, as `LogTables.read` gives them.

    On either backend `create_table(name, table, temp=True)` keeps an Arrow table or the result of an expression until
    `drop_table(name)`, and `arrow_batches` streams results.

    Args:
      logs: what `open_logs` gave.
      backend: duckdb or pyspark.
      memory_limit: such as "4GB": what DuckDB may hold in memory, or the heap of Spark's driver, which with a local
        master is all there is.
      spark_master: as spark-submit takes it, with pyspark only.

    Raises:
      InputError: a memory limit that is no size; pyspark or Java is missing; the master cannot be reached.
    """
    if backend == "duckdb":
        return logs.connect(memory_limit=memory_limit)
    from data.backends.spark_tables import connect_spark

    return connect_spark(logs, master=spark_master, memory_limit=memory_limit)


def is_spark(connection: Connection) -> TypeGuard[SparkConnection]:
    """Returns whether the tables are in Spark."""
    return connection.name == "pyspark"


def arrow_batches(connection: Connection, table: ibis.Table, *, rows: int) -> Iterator[pa.RecordBatch]:
    """Record batches of about `rows` rows, on Spark fewer, in the table's order.

    The connection is busy until the last one is taken. On DuckDB the result is kept in the backend first, which spills
    what does not fit in memory. Ibis's own to_pyarrow_batches calls a method that DuckDB 2.0 no longer has, and on
    Spark it collects the whole.
    """
    if is_spark(connection):
        yield from connection.stream(table)
        return
    name = ibis.util.gen_name("streamed")
    connection.create_table(name, table, temp=True)
    try:
        yield from cast(DuckDBConnection, connection).con.table(name).to_arrow_reader(rows)
    finally:
        connection.drop_table(name)
