"""What runs the joins of mining: DuckDB on one machine, or Spark on one or many. The expressions are the same.

connection = connect(logs, backend="pyspark", spark_master="local[4]")
connection.table("searches")                             # one view a log table
connection.create_table("scores", arrow_table, temp=True)
"""

from typing import TYPE_CHECKING, Literal

from data.tables import LogTables

if TYPE_CHECKING:
    from ibis.backends.sql import SQLBackend

LOCAL_MASTER = "local[*]"
"""Spark inside this process's machine, a thread a core."""


def connect(
    logs: LogTables,
    *,
    backend: Literal["duckdb", "pyspark"] = "duckdb",
    memory_limit: str | None = None,
    spark_master: str = LOCAL_MASTER,
) -> "SQLBackend":
    """An Ibis backend with one view a log table: every schema column in its type, as `LogTables.read` gives them.

    On either backend `create_table(name, table, temp=True)` keeps an Arrow table or the result of an expression until
    `drop_table(name)`, and data.arrow_batches streams results.

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
    from data.spark_tables import connect_spark

    return connect_spark(logs, master=spark_master, memory_limit=memory_limit)
