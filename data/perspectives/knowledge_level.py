"""P3, "the world knows": documents that a language model wrote for a query. They train and are never in the index."""

import ibis

from crops_jax.labels import Level
from data.perspectives.rows import as_rows

SOURCE = "knowledge_level"


def positives(knowledge_documents: ibis.Table) -> ibis.Table:
    """Rows of the table knowledge_documents: level 4; doc_id is the table's own."""
    rows = knowledge_documents.select("query", "doc_id").distinct()
    return as_rows(rows, level=int(Level.POSITIVE), source=SOURCE)
