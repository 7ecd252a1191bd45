"""Rows of CSV files with a header, in files that tools of every kind wrote.

A row that has too many or too few values, a quote in a wrong place, or bytes that are no UTF-8 is left out and counted.
DuckDB parses the files in the given dialect: nothing is guessed from the rows, since a guess takes `#` for the begin of
a comment.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from crops_jax.errors import InputError, one_line
from data.backends.sql import quoted_files, quoted_name, quoted_text
from data.conversion.json_lines import LINE_BYTES
from data.conversion.layouts import Part

_MIXED_ENDS = "state machine reached an invalid state"
_SHOWN = 60


def load_csv_rows(
    connection: duckdb.DuckDBPyConnection, table: str, part: Part, columns: Sequence[str]
) -> dict[str, int]:
    """Reads files with the same header into a DuckDB table with the given columns, which are text.

    Args:
      connection: the DuckDB connection.
      table: the name of the new table, quoted.
      part: the files, which can be gzipped.
      columns: those columns of the files that the table gets.

    Returns:
      reason -> the number of rows that are left out.

    Raises:
      InputError: a quoted value has no end, no row can be read, or the ends of lines differ within a file.
    """
    types = ", ".join(f"{quoted_text(name)}: 'VARCHAR'" for name in part.distinct_columns())
    try:
        connection.execute(
            f"CREATE TABLE {table} AS SELECT {', '.join(map(quoted_name, columns)) or '1 AS nothing'} FROM read_csv("
            f"{quoted_files(part.files)}, auto_detect = false, header = true, skip = {part.skip}, "
            f"delim = '{part.delimiter}', quote = '\"', escape = '\"', columns = {{{types}}}, "
            f"max_line_size = {LINE_BYTES}, store_rejects = true)"
        )
    except duckdb.Error as error:
        if _MIXED_ENDS in str(error):
            files = ", ".join(map(str, part.files[:3]))
            raise InputError(
                f"{files}: some lines end with a carriage return and others do not; end all lines alike"
            ) from error
        raise
    return _left_out(connection, table)


def _left_out(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, int]:
    rejected = connection.execute(
        "SELECT error_type = 'UNQUOTED VALUE' AND contains(csv_line, chr(10)) AS no_end, file_path, line, csv_line, "
        "error_message, count(*) OVER () FROM (SELECT DISTINCT ON (file_path, line) * FROM reject_errors "
        "JOIN reject_scans USING (scan_id, file_id)) ORDER BY no_end DESC, file_path, line LIMIT 1"
    ).fetchall()
    connection.execute("DROP TABLE reject_errors")
    connection.execute("DROP TABLE reject_scans")
    if not rejected:
        return {}
    no_end, file, line, text, message, number = rejected[0]
    shown = f"{text[:_SHOWN]!r}"
    if no_end:  # all rows up to the next quote would be left out as one
        raise InputError(
            f"{file}, line {line}: a quoted value has no end, or a quote within it is not doubled: {shown}; correct it"
        )
    place = f"{Path(file).name}, line {line}: {one_line(message)}"
    if not connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]:
        raise InputError(f"{file} is not csv or is cut off ({place}, found {shown}); correct it, or get it again")
    return {f"no row of csv (first: {place})": number}
