"""The log tables: their schemas and rules, and the code that checks, reads and writes them."""

from data.tables.duckdb_session import connect_duckdb
from data.tables.log_tables import LogTables, copy_table, open_logs, write_table
from data.tables.quarantine import OnBadRows
from data.tables.schemas import SCHEMAS

__all__ = ["SCHEMAS", "LogTables", "OnBadRows", "connect_duckdb", "copy_table", "open_logs", "write_table"]
