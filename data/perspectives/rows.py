"""The two schemas of what perspectives give.

A support says that something one user did speaks for (or against) a document of a query. A row says that a document
has a level for a query, and why: supports are counted to rows, in which users are a number.
"""

import ibis

SUPPORTS = ibis.schema(
    {
        "user_id": "string",
        "query": "string",
        "doc_id": "string",
        "source": "string",
        "via_query": "string",
        "gap_seconds": "float64",
    }
)
"""query: normalised. source: the perspective or the stage of the log. via_query: the later query that led to the
document. gap_seconds: the time between the query and what made the document known. What does not apply is null. There
may be several supports of a (user_id, query, doc_id, source, via_query)."""

SCHEMA = ibis.schema(
    {
        "query": "string",
        "doc_id": "string",
        "level": "int8",
        "source": "string",
        "score": "float64",
        "via_query": "string",
        "gap_seconds": "float64",
        "supporters": "int64",
    }
)
"""score: theta. gap_seconds: the least of the supports. supporters: how many users there are. The rest as in SUPPORTS.
There may be several rows of a (query, doc_id)."""


def as_supports(table: ibis.Table, *, source: str | None = None) -> ibis.Table:
    """Brings a table to SUPPORTS: `source` is set where given, missing columns are typed nulls."""
    if source is not None:
        table = table.mutate(source=ibis.literal(source))
    return _as(SUPPORTS, table)


def count_supporters(supports: ibis.Table) -> ibis.Table:
    """query, doc_id, source, via_query, gap_seconds (the least), supporters (distinct users) of SUPPORTS."""
    return supports.group_by("query", "doc_id", "source", "via_query").agg(
        gap_seconds=supports.gap_seconds.min(), supporters=supports.user_id.nunique()
    )


def as_rows(table: ibis.Table, *, level: int | ibis.Value | None = None, source: str | None = None) -> ibis.Table:
    """Brings a table to SCHEMA: `level` and `source` are set where given, missing columns are typed nulls."""
    if level is not None:
        table = table.mutate(level=level)
    if source is not None:
        table = table.mutate(source=ibis.literal(source))
    return _as(SCHEMA, table)


def _as(schema: ibis.Schema, table: ibis.Table) -> ibis.Table:
    table = table.mutate(**{name: ibis.null(kind) for name, kind in schema.items() if name not in table.columns})
    return table.select(**{name: table[name].cast(kind) for name, kind in schema.items()})
