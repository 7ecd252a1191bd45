"""What is refused when log tables are opened (product.md, "Log tables"), found by DuckDB without a loop over rows."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
from tqdm import tqdm

from crops_jax.errors import InputError
from crops_jax.text import normalise_query
from data.table_damage import named_read_errors
from data.table_files import TableFiles, add_view
from data.table_schemas import SCHEMAS, SPLITS, STAGES, Column, TableSchema

# Most ASCII queries show by themselves that they are normalised.
_PLAINLY_NORMALISED = r"[!-@\[-~]+( [!-@\[-~]+)*"
_BLANK = r"[\s\v\x1c-\x1f\x{85}\p{Z}]*"
REFERENCES = (
    ("candidates", "search_id", "searches"),
    ("candidates", "doc_id", "documents"),
    ("feed_views", "doc_id", "documents"),
)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A condition (SQL) under which a row is refused, what is then said of it, and the remedy."""

    column: str
    broken: str
    found: str
    problem: str
    remedy: str


def check_tables(
    connection: duckdb.DuckDBPyConnection, directory: Path, tables: dict[str, TableFiles]
) -> dict[str, pa.Table]:
    """Checks tables whose footers are known to be right.

    Returns:
      By table that keeps its queries normalised: (query, normalised) of those stored in another form.

    Raises:
      InputError: naming table, file, column, row, what was found and what to do.
    """
    _check_presence(directory, tables)
    rewrites = {}
    rows = sum(table.rows for table in tables.values())
    with tqdm(total=rows, desc="checking log tables", unit=" rows", delay=3, leave=False) as progress:
        for table in tables.values():
            rewritten = check_table(connection, table)
            if rewritten.num_rows:
                rewrites[table.name] = rewritten
            progress.update(table.rows)
        for name, column, owner in REFERENCES:
            if name in tables:
                with named_read_errors(tables[name]):
                    _check_reference(connection, name, column, owner)
        if "knowledge_documents" in tables:
            with named_read_errors(tables["knowledge_documents"]):
                _check_written_ids(connection)
    return rewrites


def check_table(connection: duckdb.DuckDBPyConnection, table: TableFiles) -> pa.Table:
    """Checks rows and key of one table, every value of which is read, and leaves a view of it in the connection.

    Returns:
      (query, normalised) of the queries that are stored in another form; empty for tables that keep them as typed.

    Raises:
      InputError: as check_tables.
    """
    with named_read_errors(table):
        _check_values(connection, table)
        rewrites = _query_rewrites(connection, table)
        add_view(connection, table, rewrites=rewrites if rewrites.num_rows else None, located=True)
        _check_key(connection, table)
    return rewrites


def _check_presence(directory: Path, tables: dict[str, TableFiles]) -> None:
    if "documents" not in tables:
        raise InputError(_missing_table(directory, "documents"))
    if "candidates" in tables and "searches" not in tables:
        raise InputError(_missing_table(directory, "searches"))
    if "judgements" not in tables:
        for name in ("searches", "candidates"):
            if name not in tables:
                raise InputError(f"{_missing_table(directory, name)}; or bring judgements instead of a log")
    required = {"documents", "searches", "candidates"} if "candidates" in tables else {"documents", "judgements"}
    for name in sorted(required | ({"searches"} & set(tables))):
        if not tables[name].rows:
            files = ", ".join(str(file) for file in tables[name].files[:3])
            raise InputError(f"table {name}: {files} has no rows; fill it or, if it is not needed, remove it")


def _missing_table(directory: Path, name: str) -> str:
    return (
        f"{directory}: table {name} is missing; add {name}.parquet, or a folder {name} of Parquet files, with the "
        f"columns {', '.join(SCHEMAS[name].required)}"
    )


def _check_values(connection: duckdb.DuckDBPyConnection, table: TableFiles) -> None:
    """One pass over the table that evaluates every rule and reads every value."""
    rules = list(value_rules(table.schema, table.stored))
    read_all = ", ".join(f'"stored {column}"' for column in table.stored)
    broken = "".join(f", count(*) FILTER ({rule.broken})" for rule in rules)
    add_view(connection, table, view=f"stored_{table.name}", located=True, with_stored=True)
    counts = connection.execute(
        f"SELECT count(*), bit_xor(hash({read_all})){broken} FROM stored_{table.name}"
    ).fetchall()[0]
    if counts[0] != table.rows:
        raise InputError(f"table {table.name}: {counts[0]} rows were read of {table.rows}; write the table again")
    for rule, number in zip(rules, counts[2:], strict=True):
        if number:
            raise InputError(_broken_rule(connection, table, rule, number))


def _broken_rule(connection: duckdb.DuckDBPyConnection, table: TableFiles, rule: Rule, number: int) -> str:
    # FILTER, for WHERE would skip row groups by their statistics, which leave out NaN.
    first = connection.execute(
        f'SELECT min({{"file": file, "row": row, "found": {rule.found}}}) FILTER ({rule.broken}) '
        f"FROM stored_{table.name}"
    ).fetchall()[0][0]
    others = f" ({number} such rows)" if number > 1 else ""
    return (
        f"table {table.name}, column {rule.column}: {_place(first)}: "
        f"{rule.problem.format(found=_quoted(first['found']))}{others}; {rule.remedy}"
    )


def value_rules(schema: TableSchema, present: Collection[str]) -> Iterator[Rule]:
    """The rules for single rows of a table of which the columns `present` are there.

    Their SQL is over the columns as readers get them, and "stored COLUMN" for the value as it lies in the file.
    """
    for column in schema.columns:
        if column.name in present:
            yield from _column_rules(column)
    if {"position", "stage"} <= set(present):
        yield Rule(
            column="position",
            broken="position IS NOT NULL AND stage <> 'shown'",
            found="position || ' at stage ' || stage",
            problem="a document that was not shown has position {found}",
            remedy="leave position null unless stage is shown",
        )


def _column_rules(column: Column) -> Iterator[Rule]:
    name = f'"{column.name}"'
    stored, found = f'"stored {column.name}"', f'CAST("stored {column.name}" AS VARCHAR)'

    def rule(broken: str, problem: str, remedy: str) -> Rule:
        return Rule(column=column.name, broken=broken, found=found, problem=problem, remedy=remedy)

    if column.required:
        yield rule(f"{stored} IS NULL", "null in a required column", "fill it, or leave the row out")
    match column.kind:
        case "id":
            # Blanks sort below "!": the trim, which is slow, is for few.
            yield rule(
                f"{name} < '!' AND trim({name}) = ''",
                "an empty id",
                "give every row its id; nameless users are not one user",
            )
        case "query":
            yield rule(
                f"regexp_full_match({name}, '{_BLANK}')", "an empty query ({found})", "leave out searches without words"
            )
            yield rule(f"contains({name}, chr(0))", "a NUL character in {found}", "take it out, or leave the row out")
        case "stage":
            yield rule(f"{name} NOT IN {STAGES}", "unknown stage {found}", f"known are {', '.join(STAGES)}")
        case "split":
            yield rule(f"{name} NOT IN {SPLITS}", "unknown split {found}", f"known are {', '.join(SPLITS)}, or null")
        case "time":
            yield rule(
                f"{stored} IS NOT NULL AND {name} IS NULL",
                "{found} is no time",
                "write ISO 8601, such as 2024-05-31T23:59:59Z, or a timestamp column",
            )
            yield rule(
                f"{name} < TIMESTAMPTZ '0001-01-01 00:00:00+00' OR {name} >= TIMESTAMPTZ '9999-12-31 00:00:00+00'",
                "{found} lies outside the years 1 to 9999",
                "check the unit of the timestamps",
            )
        case "position":
            yield rule(
                f"{stored} IS NOT NULL AND {name} IS NULL", "{found} is no position", "positions are whole, from 1"
            )
            yield rule(f"{name} < 1", "position {found} is below 1", "count positions from 1")
        case "level":
            yield rule(
                f"{stored} IS NOT NULL AND ({name} IS NULL OR {name} NOT BETWEEN 0 AND 5)",
                "{found} is no level",
                "levels are 0 to 5",
            )
        case "probability":
            yield rule(f"NOT {name} BETWEEN 0 AND 1", "{found} is not in 0 to 1", "correct it, or leave it null")
        case "json":
            yield rule(f"NOT json_valid({name})", "{found} is not JSON", "write it as JSON text")
        case "seconds" | "grade":
            yield rule(
                f"NOT isfinite({name}) OR {name} < 0",
                "{found} is not a finite number of at least 0",
                "correct it" if column.required else "correct it, or leave it null",
            )


def _query_rewrites(connection: duckdb.DuckDBPyConnection, table: TableFiles) -> pa.Table:
    if not table.schema.normalised_query:
        return pa.table({"query": [], "normalised": []})
    doubtful = connection.sql(
        f"SELECT DISTINCT query FROM stored_{table.name} "
        f"WHERE NOT regexp_full_match(query, '{_PLAINLY_NORMALISED}') ORDER BY query"
    ).to_arrow_table()
    stored = doubtful.column("query").to_pylist()
    changed = [(query, normal) for query in stored if (normal := normalise_query(query)) != query]
    return pa.table(
        {
            "query": pa.array([query for query, _ in changed], pa.string()),
            "normalised": pa.array([normal for _, normal in changed], pa.string()),
        }
    )


def _check_key(connection: duckdb.DuckDBPyConnection, table: TableFiles) -> None:
    """Groups by a 64-bit hash of the key, which is small, and looks at the keys themselves only where hashes repeat."""
    if not table.schema.key:
        return
    key = ", ".join(f'"{column}"' for column in table.schema.key)
    suspects = connection.execute(
        f"CREATE OR REPLACE TEMP TABLE suspects AS SELECT hash({key}) AS digest FROM {table.name} "
        "GROUP BY digest HAVING count(*) > 1"
    ).fetchall()[0][0]
    if not suspects:
        return
    shown = " || ', ' || ".join(f"'{column} ' || \"{column}\"" for column in table.schema.key)
    number, first = connection.execute(
        'SELECT count(*), min({"file": file, "row": row, "found": found}) FROM ('
        f"SELECT file, row, {shown} AS found FROM {table.name} WHERE hash({key}) IN (FROM suspects) "
        f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY file, row) > 1)"
    ).fetchall()[0]
    if number:
        others = f" ({number} rows repeat a key)" if number > 1 else ""
        folded = " once queries are normalised (NFKC, lower case, white space folded)"
        raise InputError(
            f"table {table.name}, column {' and '.join(table.schema.key)}: {_place(first)} repeats the key "
            f"{_quoted(first['found'])} of an earlier row{folded if table.schema.normalised_query else ''}{others}; "
            "keep one row for each key"
        )


def _check_reference(connection: duckdb.DuckDBPyConnection, name: str, column: str, owner: str) -> None:
    number, first = connection.execute(
        f'SELECT count(*), min({{"file": file, "row": row, "found": {column}}}) '
        f"FROM {name} ANTI JOIN {owner} USING ({column})"
    ).fetchall()[0]
    if number:
        others = f" ({number} such rows)" if number > 1 else ""
        raise InputError(
            f"table {name}, column {column}: {_place(first)}: {_quoted(first['found'])} is not in table {owner}"
            f"{others}; add it there, or leave the row out"
        )


def _check_written_ids(connection: duckdb.DuckDBPyConnection) -> None:
    """A document that a language model wrote is never one of the index: labels could not tell them apart."""
    first = connection.execute(
        'SELECT min({"file": file, "row": row, "found": doc_id}) FROM knowledge_documents SEMI JOIN documents '
        "USING (doc_id)"
    ).fetchall()[0][0]
    if first:
        raise InputError(
            f"table knowledge_documents, column doc_id: {_place(first)}: {_quoted(first['found'])} is in table "
            "documents too; give it another id"
        )


def _place(first: dict) -> str:
    return f"{first['file']}, row {first['row']} (counted from 0)"


def _quoted(value: object) -> str:
    text = " ".join(str(value).split())
    return f'"{text[:80]}{"..." if len(text) > 80 else ""}"'
