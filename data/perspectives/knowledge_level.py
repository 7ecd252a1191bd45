"""Perspective P3, the knowledge level: documents that a language model wrote for a query are positives of this query.

These documents are used only in training and are never in the index.
"""

import ibis

from crops_jax.labels import Level
from data.perspectives.rows import as_rows

SOURCE = "knowledge_level"


def positives(knowledge_documents: ibis.Table) -> ibis.Table:
    """Returns one row with level 4 for each distinct (query, doc_id) of the table knowledge_documents."""
    rows = knowledge_documents.select("query", "doc_id").distinct()
    return as_rows(rows, level=int(Level.POSITIVE), source=SOURCE)
