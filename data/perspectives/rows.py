"""The one schema of what perspectives give: a row says that a document has a level for a query, and why."""

import ibis

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
"""query: normalised. source: the perspective or the stage of the log. score: theta. via_query: the later query that
led to the document. gap_seconds: the least time between the query and what made the document known. supporters: how
many users did so. What does not apply is null. There may be several rows of a (query, doc_id)."""


def as_rows(table: ibis.Table, *, level: int | ibis.Value | None = None, source: str | None = None) -> ibis.Table:
    """Brings a table to SCHEMA: `level` and `source` are set where given, missing columns are typed nulls."""
    if level is not None:
        table = table.mutate(level=level)
    if source is not None:
        table = table.mutate(source=ibis.literal(source))
    missing = {name: ibis.null(kind) for name, kind in SCHEMA.items() if name not in table.columns}
    table = table.mutate(**missing)
    return table.select(**{name: table[name].cast(kind) for name, kind in SCHEMA.items()})
