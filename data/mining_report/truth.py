"""The precision of each source of labels by the truth of a generated world, which mining never reads."""

from pathlib import Path
from typing import Any

from crops_jax.labels import Level
from crops_jax.retrieval.intervals import bootstrap_ratio
from data.mining_report.tables import ReportTables
from data.tables.truth import has_truth, read_truth


def precision_by_truth(tables: ReportTables, logs: Path | str) -> dict[str, dict[str, Any]] | None:
    """Returns for each source of labels the share that is relevant by the truth; None for logs without a truth.

    Counted are labels of documents of the logs, for queries that the truth knows, which are those that were searched
    and have a relevant document: the positives of each perspective, and the hard negatives of each stage of the log, of
    which a large share can be relevant too. Documents that a language model wrote have no grade in the truth.

    Args:
      tables: the tables of the report.
      logs: the directory of the log tables that the labels were mined from.

    Returns:
      source -> {"pairs", "relevant", "value", "low", "high", "queries"}: two numbers of labels, their ratio with its
      bootstrap interval over queries, and the number of queries.

    Raises:
      InputError: the truth cannot be read.
    """
    if not has_truth(logs):
        return None
    tables.connection.register("truth", read_truth(logs, ["query", "doc_id"]))
    negatives = f"level >= {int(Level.IN_BATCH_NEGATIVE)} AND level < {int(Level.POSITIVE)}"
    rows = tables.rows(
        f"""
        WITH told AS (
          SELECT source, query, doc_id FROM finds
          UNION ALL
          SELECT source, query, doc_id FROM labels WHERE {negatives}
        ), counted AS (
          SELECT source, query, count(*) AS pairs, count(truth.doc_id) AS relevant
          FROM told SEMI JOIN documents USING (doc_id) LEFT JOIN truth USING (query, doc_id)
          WHERE query IN (SELECT query FROM truth) GROUP BY source, query
        )
        SELECT source, list(pairs ORDER BY query), list(relevant ORDER BY query)
        FROM counted GROUP BY source ORDER BY source
        """
    )
    return {
        source: {"pairs": sum(pairs), "relevant": sum(relevant), **bootstrap_ratio(relevant, pairs).as_json(digits=4)}
        for source, pairs, relevant in rows
    }
