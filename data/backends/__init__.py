"""The backends that run the joins of mining: DuckDB on one machine, or Spark on one or several machines."""
