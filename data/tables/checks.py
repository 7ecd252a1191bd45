"""The checks of log tables when they are opened. DuckDB runs them, without a loop over rows."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import duckdb
import pyarrow as pa

from crops_jax.errors import InputError, InputErrors
from crops_jax.program.progress import ProgressLine
from crops_jax.text import normalise_query
from data.tables.files import TableFiles, add_view, named_read_errors
from data.tables.rules import REFERENCES, Rule, value_rules
from data.tables.schemas import SCHEMAS

# A query that matches this expression, as nearly all ASCII queries do, is certainly normalised.
_CERTAINLY_NORMALISED = r"[!-@\[-~]+( [!-@\[-~]+)*"
_FILES = "the files"
WRITTEN_IDS = (
    "SELECT file, row, doc_id AS found FROM knowledge_documents WHERE doc_id IN (SELECT doc_id FROM documents)"
)
"""The query for the rows of knowledge_documents with the id of a document of the table documents. A document that a
language model wrote must not share its id with a document of the index, because labels could not distinguish them."""


def check_tables(
    connection: duckdb.DuckDBPyConnection,
    directory: Path,
    tables: dict[str, TableFiles],
    unreadable: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[str, pa.Table]:
    """Checks tables whose footers are already checked.

    Args:
      connection: the DuckDB connection that the checks use.
      directory: the directory of the tables, for messages.
      tables: the files of each table, by the table's name.
      unreadable: the problems of other tables, whose footers are wrong, by the table's name.

    Returns:
      table name -> (query, normalised) for its queries that are stored in another form than the normalised one. Tables
      without such queries are omitted.

    Raises:
      InputErrors: a required table is missing or empty, or rows break rules. The message has the problems of all
        tables; each names the table, file, column and row, the value and the remedy.
    """
    problems = [problem for listed in unreadable.values() for problem in listed]
    problems += presence_problems(directory, tables, unreadable)
    rewrites = {}
    rows = sum(table.rows for table in tables.values())
    wrong: set[tuple[str, str]] = set()
    with ProgressLine(total=rows, desc="checking log tables", unit="rows", leave=False) as progress:
        for table in tables.values():
            found, rewritten = _row_problems(connection, table)
            problems += [problem for _, problem in found]
            wrong |= {(table.name, column) for column, _ in found}
            if rewritten.num_rows:
                rewrites[table.name] = rewritten
            progress.update(table.rows)
        for name, column, owner in REFERENCES:
            broken = {(name, column), (owner, column), (name, _FILES), (owner, _FILES)}
            if name in tables and owner in tables and wrong.isdisjoint(broken):
                with named_read_errors(tables[name]):
                    problems += _reference_problem(connection, name, column, owner)
        if {"knowledge_documents", "documents"} <= set(tables) and wrong.isdisjoint(
            {("knowledge_documents", _FILES), ("documents", _FILES)}
        ):
            with named_read_errors(tables["knowledge_documents"]):
                problems += _written_id_problem(connection)
    if problems:
        raise InputErrors(problems)
    return rewrites


def check_table(connection: duckdb.DuckDBPyConnection, table: TableFiles) -> pa.Table:
    """Checks the rows and the key of one table. It reads every value, and adds a view of the table to the connection.

    Returns:
      (query, normalised) for the queries that are stored in another form than the normalised one; empty for tables
      that keep queries as users typed them.

    Raises:
      InputErrors: rows break rules, as for check_tables.
    """
    problems, rewrites = _row_problems(connection, table)
    if problems:
        raise InputErrors([problem for _, problem in problems])
    return rewrites


def _row_problems(connection: duckdb.DuckDBPyConnection, table: TableFiles) -> tuple[list[tuple[str, str]], pa.Table]:
    """Returns (column, message) of each rule that rows of a table break, and the rewrites of its queries.

    The column is _FILES if files are damaged.
    """
    problems = []
    try:
        with named_read_errors(table):
            for rule, number in broken_rules(connection, table):
                problems.append((rule.column, _broken_rule(connection, table, rule, number)))
            rewrites = query_rewrites(connection, table)
            add_view(connection, table, rewrites=rewrites, located=True)
            if not {column for column, _ in problems} & set(table.schema.key):
                problems += [("", problem) for problem in _key_problem(connection, table)]
    except InputError as error:
        return [*problems, (_FILES, str(error))], pa.table({"query": [], "normalised": []})
    return problems, rewrites


def check_presence(directory: Path, tables: dict[str, TableFiles]) -> None:
    """Raises InputErrors if required tables are missing or have no rows."""
    if problems := presence_problems(directory, tables, {}):
        raise InputErrors(problems)


def presence_problems(
    directory: Path, tables: dict[str, TableFiles], unreadable: Mapping[str, Sequence[str]]
) -> list[str]:
    """Returns what is to be said of required tables that are missing or have no rows."""
    names = {*tables, *unreadable}
    missing = []
    if "documents" not in names:
        missing.append(_missing_table(directory, "documents"))
    if "candidates" in names and "searches" not in names:
        missing.append(_missing_table(directory, "searches"))
    elif "judgements" not in names:
        absent = [name for name in ("searches", "candidates") if name not in names]
        missing += [
            f"{_missing_table(directory, name)}; or add the table judgements instead of a log" for name in absent
        ]
    for name in required_tables(names):
        if name in tables and not tables[name].rows:
            files = ", ".join(str(file) for file in tables[name].files[:3])
            missing.append(f"table {name}: {files} has no rows; fill it or, if it is not needed, remove it")
    return missing


def required_tables(tables: Collection[str]) -> list[str]:
    """Returns the tables that are present and must have rows."""
    required = {"documents", "searches", "candidates"} if "candidates" in tables else {"documents", "judgements"}
    return sorted(required | ({"searches"} & set(tables)))


def _missing_table(directory: Path, name: str) -> str:
    return (
        f"{directory}: table {name} is missing; add {name}.parquet, or a folder {name} of Parquet files, with the "
        f"columns {', '.join(SCHEMAS[name].required)}"
    )


def broken_rules(connection: duckdb.DuckDBPyConnection, table: TableFiles) -> list[tuple[Rule, int]]:
    """Returns the rules that rows of a table break, each with the number of these rows.

    One pass reads every value. It adds the view stored_NAME to the connection: the table with file, row and the stored
    values.
    """
    rules = list(value_rules(table.schema, table.stored))
    read_all = ", ".join(f'"stored {column}"' for column in table.stored)
    broken = "".join(f", count(*) FILTER ({rule.broken})" for rule in rules)
    add_view(connection, table, view=f"stored_{table.name}", located=True, with_stored=True)
    counts = connection.execute(
        f"SELECT count(*), bit_xor(hash({read_all})){broken} FROM stored_{table.name}"
    ).fetchall()[0]
    if counts[0] != table.rows:
        raise InputError(f"table {table.name}: {counts[0]} rows were read of {table.rows}; write the table again")
    return [(rule, number) for rule, number in zip(rules, counts[2:], strict=True) if number]


def _broken_rule(connection: duckdb.DuckDBPyConnection, table: TableFiles, rule: Rule, number: int) -> str:
    # FILTER is used because WHERE would skip row groups by their statistics, which omit NaN.
    first = connection.execute(
        f'SELECT min({{"file": file, "row": row, "found": {rule.found}}}) FILTER ({rule.broken}) '
        f"FROM stored_{table.name}"
    ).fetchall()[0][0]
    others = f" ({number} such rows)" if number > 1 else ""
    return (
        f"table {table.name}, column {rule.column}: {_row_location(first)}: "
        f"{rule.problem.format(found=_quoted(first['found']))}{others}; {rule.remedy}"
    )


def query_rewrites(connection: duckdb.DuckDBPyConnection, table: TableFiles) -> pa.Table:
    """Returns (query, normalised) for the queries of the view stored_NAME that are stored in another form.

    The result is empty for tables that keep queries as users typed them.
    """
    if not table.schema.normalised_query:
        return pa.table({"query": [], "normalised": []})
    uncertain = connection.sql(
        f"SELECT DISTINCT query FROM stored_{table.name} "
        f"WHERE NOT regexp_full_match(query, '{_CERTAINLY_NORMALISED}') ORDER BY query"
    ).to_arrow_table()
    stored = uncertain.column("query").to_pylist()
    changed = [(query, normal) for query in stored if (normal := normalise_query(query)) != query]
    return pa.table(
        {
            "query": pa.array([query for query, _ in changed], pa.string()),
            "normalised": pa.array([normal for _, normal in changed], pa.string()),
        }
    )


def repeated_rows(connection: duckdb.DuckDBPyConnection, table: TableFiles) -> str | None:
    """Returns a SELECT of (file, row, found) for the rows that repeat the key of an earlier row; found is the key.

    Rows are grouped by a 64-bit hash of the key, which is small; only the keys of repeated hashes are compared.

    Returns None if the table has no key or no hash is repeated.
    """
    if not table.schema.key:
        return None
    key = ", ".join(f'"{column}"' for column in table.schema.key)
    suspects = connection.execute(
        f"CREATE OR REPLACE TEMP TABLE suspects AS SELECT hash({key}) AS digest FROM {table.name} "
        "GROUP BY digest HAVING count(*) > 1"
    ).fetchall()[0][0]
    if not suspects:
        return None
    shown = " || ', ' || ".join(f"'{column} ' || \"{column}\"" for column in table.schema.key)
    return (
        f"SELECT file, row, {shown} AS found FROM {table.name} WHERE hash({key}) IN (FROM suspects) "
        f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY file, row) > 1"
    )


def _key_problem(connection: duckdb.DuckDBPyConnection, table: TableFiles) -> list[str]:
    repeated = repeated_rows(connection, table)
    number, first = _count_and_first(connection, repeated) if repeated else (0, {})
    if number:
        others = f" ({number} rows repeat a key)" if number > 1 else ""
        folded = " once queries are normalised (NFKC, lower case, no format characters, white space folded)"
        return [
            f"table {table.name}, column {' and '.join(table.schema.key)}: {_row_location(first)} repeats the key "
            f"{_quoted(first['found'])} of an earlier row{folded if table.schema.normalised_query else ''}{others}; "
            "keep one row for each key"
        ]
    return []


def unknown_rows(name: str, column: str, owner: str) -> str:
    """Returns a SELECT of (file, row, found) for the rows whose value of `column`, `found`, is not in table `owner`."""
    return f"SELECT file, row, {column} AS found FROM {name} ANTI JOIN {owner} USING ({column})"


def _reference_problem(connection: duckdb.DuckDBPyConnection, name: str, column: str, owner: str) -> list[str]:
    number, first = _count_and_first(connection, unknown_rows(name, column, owner))
    if number:
        others = f" ({number} such rows)" if number > 1 else ""
        return [
            f"table {name}, column {column}: {_row_location(first)}: {_quoted(first['found'])} is not in table {owner}"
            f"{others}; add it to that table, or leave the row out"
        ]
    return []


def _written_id_problem(connection: duckdb.DuckDBPyConnection) -> list[str]:
    number, first = _count_and_first(connection, WRITTEN_IDS)
    if number:
        return [
            f"table knowledge_documents, column doc_id: {_row_location(first)}: {_quoted(first['found'])} is in table "
            "documents too; give it another id"
        ]
    return []


def _count_and_first(connection: duckdb.DuckDBPyConnection, rows: str) -> tuple[int, dict]:
    return connection.execute(
        f'SELECT count(*), min({{"file": file, "row": row, "found": found}}) FROM ({rows})'
    ).fetchall()[0]


def _row_location(first: dict) -> str:
    return f"{first['file']}, row {first['row']} (counted from 0)"


def _quoted(value: object) -> str:
    text = " ".join(str(value).split())
    return f'"{text[:80]}{"..." if len(text) > 80 else ""}"'
