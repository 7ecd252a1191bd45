"""The rules for single rows of the log tables and the label table, as SQL conditions."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from data.tables.schemas import SPLITS, STAGES, Column, TableSchema

# Nothing else is left of a query in its normal form (crops_jax.text.normalise_query).
_BLANK = r"[\s\v\x1c-\x1f\x{85}\p{Z}\p{Cf}]*"
REFERENCES = (
    ("candidates", "search_id", "searches"),
    ("candidates", "doc_id", "documents"),
    ("feed_views", "doc_id", "documents"),
)
"""The references between tables: (table, column, the table that must contain the column's values)."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule for the rows of a table, and the parts of its error message."""

    column: str
    """The name of the column that the message names."""
    broken: str
    """The SQL condition of the rows that break the rule."""
    found: str
    """The SQL expression of the value that the message shows."""
    problem: str
    """The problem as text, with {found} in the position of the value."""
    remedy: str
    """The remedy as text."""


def value_rules(schema: TableSchema, present: Collection[str]) -> Iterator[Rule]:
    """Yields the rules for single rows of a table that has the columns `present`.

    In their SQL, COLUMN is the value that readers get, and "stored COLUMN" is the value in the file.
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
    if column.kind in {"id", "query", "text"}:
        yield rule(
            f"{stored} IS NOT NULL AND {name} IS NULL",
            "{found} is no whole number that a text can hold",
            "write the values as text",
        )
    match column.kind:
        case "flag":
            yield rule(f"{stored} IS NOT NULL AND {name} IS NULL", "{found} is no flag", "write booleans, or 0 and 1")
        case "id":
            # Blanks sort below "!", so that the trim, which is slow, runs for few values only.
            yield rule(
                f"{name} < '!' AND trim({name}) = ''",
                "an empty id",
                "give every row its id; anonymous users must not share one id",
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
                "write ISO 8601, such as 2024-05-31T23:59:59Z, a timestamp column, or an epoch from 2000 to 2099",
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
        case "score":  # a probability, or the cosine similarity of a model
            yield rule(f"NOT {name} BETWEEN -1 AND 1", "{found} is not in -1 to 1", "correct it, or leave it null")
        case "json":
            yield rule(f"NOT json_valid({name})", "{found} is not JSON", "write it as JSON text")
        case "seconds" | "grade":
            yield rule(
                f"NOT isfinite({name}) OR {name} < 0",
                "{found} is not a finite number of at least 0",
                "correct it" if column.required else "correct it, or leave it null",
            )
