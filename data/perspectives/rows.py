"""The two schemas of the tables that perspectives return.

A support is an action of one user that is evidence for (or against) the relevance of a document for a query. A row is a
document with its level for a query and the evidence for it. Supports are aggregated to rows, which have only the number
of users.
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
"""The columns of supports. query: the normalised query. source: the perspective, or the stage of the log. via_query:
the later query that led to the document. gap_seconds: the time between the query and the later query or feed view that
led to the document. Values that do not apply are null. Several supports can have the same (user_id, query, doc_id,
source, via_query)."""

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
"""The columns of rows. score: the probability of the relevance discriminator (theta). gap_seconds: the minimum over the
supports. supporters: the number of distinct users. The other columns have the same meaning as in SUPPORTS. Several rows
can have the same (query, doc_id)."""


def as_supports(table: ibis.Table, *, source: str | None = None) -> ibis.Table:
    """Casts a table to SUPPORTS. The column `source` is set if it is not None; missing columns are typed nulls."""
    if source is not None:
        table = table.mutate(source=ibis.literal(source))
    return _cast(SUPPORTS, table)


def count_supporters(supports: ibis.Table) -> ibis.Table:
    """Aggregates SUPPORTS by query, doc_id, source and via_query.

    Returns:
      these columns, gap_seconds (the minimum) and supporters (the number of distinct users).
    """
    return supports.group_by("query", "doc_id", "source", "via_query").agg(
        gap_seconds=supports.gap_seconds.min(), supporters=supports.user_id.nunique()
    )


def as_rows(table: ibis.Table, *, level: int | ibis.Value | None = None, source: str | None = None) -> ibis.Table:
    """Casts a table to SCHEMA.

    The columns `level` and `source` are set if they are not None; missing columns are typed nulls.
    """
    if level is not None:
        table = table.mutate(level=level)
    if source is not None:
        table = table.mutate(source=ibis.literal(source))
    return _cast(SCHEMA, table)


def _cast(schema: ibis.Schema, table: ibis.Table) -> ibis.Table:
    table = table.mutate(**{name: ibis.null(kind) for name, kind in schema.items() if name not in table.columns})
    return table.select(**{name: table[name].cast(kind) for name, kind in schema.items()})
