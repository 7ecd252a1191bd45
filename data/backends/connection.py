"""The connection to the backend that runs the joins of mining: DuckDB on one machine, or Spark on several machines.

The Ibis expressions are the same for both.

connection = connect(logs, backend="pyspark", spark_master="local[4]")
connection.table("searches")                             # one view for each log table
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
"""The Spark master on this machine, with one thread for each core."""


def connect(
    logs: LogTables,
    *,
    backend: Literal["duckdb", "pyspark"] = "duckdb",
    memory_limit: str | None = None,
    spark_master: str = LOCAL_MASTER,
) -> Connection:
    """Returns an Ibis backend with one view for each log table.

    Every view has every schema column in the type in which `LogTables.read` returns it. On both backends
    `create_table(name, table, temp=True)` keeps an Arrow table or the result of an expression until `drop_table(name)`,
    and `arrow_batches` streams results.

    Args:
      logs: the log tables that `open_logs` returned.
      backend: "duckdb" or "pyspark".
      memory_limit: a size such as "4GB". For DuckDB it is the maximum memory; for Spark it is the heap of the driver,
        which with a local master is the whole heap of Spark.
      spark_master: the master in the form of spark-submit; it is used only with "pyspark".

    Raises:
      InputError: the memory limit is not a size, pyspark or Java is missing, or the master cannot be reached.
    """
    if backend == "duckdb":
        return logs.connect(memory_limit=memory_limit)
    from data.backends.spark_tables import connect_spark

    return connect_spark(logs, master=spark_master, memory_limit=memory_limit)


def is_spark(connection: Connection) -> TypeGuard[SparkConnection]:
    """Returns whether the backend is Spark."""
    return connection.name == "pyspark"


def arrow_batches(connection: Connection, table: ibis.Table, *, rows: int) -> Iterator[pa.RecordBatch]:
    """Yields record batches of about `rows` rows (on Spark fewer) in the table's order.

    The connection is busy until the last batch is read. DuckDB first stores the whole result and spills data that does
    not fit in memory. The method to_pyarrow_batches of Ibis is not used: it calls a method that DuckDB 2.0 no longer
    has, and on Spark it collects the whole result.
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
