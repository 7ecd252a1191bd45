"""What runs the joins of mining: DuckDB on one machine, or Spark on one or many."""
