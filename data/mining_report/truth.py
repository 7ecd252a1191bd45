"""The precision of each source of positives by the truth of a generated world, which mining never reads."""

from pathlib import Path
from typing import Any

from data.mining_report.tables import ReportTables
from data.tables.truth import has_truth, read_truth


def precision_by_truth(tables: ReportTables, logs: Path | str) -> dict[str, dict[str, Any]] | None:
    """Returns for each source of positives the share that is relevant by the truth; None for logs without a truth.

    Counted are positives that are documents of the logs, for queries that the truth knows, which are those that were
    searched and have a relevant document. Documents that a language model wrote have no grade in the truth.

    Args:
      tables: the tables of the report.
      logs: the directory of the log tables that the labels were mined from.

    Returns:
      source -> {"pairs", "relevant", "value"}: two numbers of positives, and their ratio (None without pairs).

    Raises:
      InputError: the truth cannot be read.
    """
    if not has_truth(logs):
        return None
    tables.connection.register("truth", read_truth(logs, ["query", "doc_id"]))
    rows = tables.rows(
        "SELECT source, count(*), count(truth.doc_id) FROM finds SEMI JOIN documents USING (doc_id) "
        "LEFT JOIN truth USING (query, doc_id) WHERE query IN (SELECT query FROM truth) GROUP BY source ORDER BY source"
    )
    return {
        source: {"pairs": pairs, "relevant": relevant, "value": round(relevant / pairs, 4) if pairs else None}
        for source, pairs, relevant in rows
    }
