"""The information that the log tables have about mined pairs: judgements, and documents with equal texts."""

import hashlib

import duckdb
import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from crops_jax.errors import InputError
from crops_jax.text import DOCUMENT_FIELDS, document_text, normalise_query
from data.tables import open_logs

_ROWS = 16_384


class JudgedLogs:
    """The judgements and documents of LOGS. They are copied into the connection of a MinedLabels
    (launch.negatives.mined_labels), where they are joined with its tables.
    """

    def __init__(self, logs: str, connection: duckdb.DuckDBPyConnection, *, with_texts: bool = False):
        """
        Args:
          logs: the directory of log tables.
          connection: the connection of the MinedLabels.
          with_texts: whether to read the texts of the documents too, which equal_texts needs.
        """
        self.path = logs
        self._connection = connection
        tables = open_logs(logs)
        self._logs = tables.connect().con
        self._read_documents(with_texts)
        self.absent = None if "judgements" in tables.names else f"there is no table judgements in {logs}"
        if self.absent is None:
            # Judgements of split test are never read, because their content would enter training.
            judged = self._logs.sql(
                "SELECT query, doc_id, grade FROM judgements WHERE coalesce(split, 'train') = 'train'"
            ).to_arrow_reader(_ROWS)
            self._keep("judged", judged)

    def _read_documents(self, with_texts: bool) -> None:
        columns = ("doc_id", *DOCUMENT_FIELDS) if with_texts else ("doc_id",)
        batches = self._logs.sql(f"SELECT {', '.join(columns)} FROM documents").to_arrow_reader(_ROWS)
        schema = pa.schema([("doc_id", pa.string()), ("digest", pa.binary())])
        digested = (
            pa.RecordBatch.from_pydict(
                {"doc_id": batch.column("doc_id"), "digest": [_digest(row) for row in batch.to_pylist()]}, schema
            )
            for batch in batches
        )
        self._keep("documents", pa.RecordBatchReader.from_batches(schema, digested))

    def _keep(self, name: str, rows: pa.RecordBatchReader) -> None:
        self._connection.register("arriving", rows)
        self._connection.execute(f"CREATE TEMP TABLE {name} AS FROM arriving")
        self._connection.unregister("arriving")

    def check_corpus(self, embeddings: str) -> None:
        """Raises InputError if the embeddings have documents that are not in the log tables."""
        number, first = self._connection.execute(
            "SELECT count(*), min(doc_id) FROM corpus ANTI JOIN documents USING (doc_id)"
        ).fetchall()[0]
        if number:
            raise InputError(
                f"--document-embeddings {embeddings}: {number} documents, {first!r} the first, are not in table "
                f"documents of --logs {self.path}; embed the documents of these logs"
            )

    def equal_texts(self) -> Int64[np.ndarray, "documents"]:
        """Returns for each document of the corpus the index of the first one with the same text.

        White space and case are ignored. A document without text is equal only to itself.
        """
        firsts = self._connection.sql(
            "SELECT CASE WHEN digest IS NULL THEN document ELSE min(document) OVER (PARTITION BY digest) END AS first "
            "FROM corpus JOIN documents USING (doc_id) ORDER BY document"
        )
        return firsts.to_arrow_table().column("first").to_numpy()

    def of_mined(self) -> list[tuple[str, float]]:
        """Returns the query and the grade of each mined pair that has a judgement."""
        if self.absent is not None:
            return []
        return self._connection.execute(
            "SELECT query, grade FROM mined JOIN asked USING (place) JOIN corpus USING (document) "
            "JOIN judged USING (query, doc_id) WHERE mined.new ORDER BY query, doc_id"
        ).fetchall()


def _digest(document: dict) -> bytes | None:
    text = normalise_query(document_text(document))
    return hashlib.sha256(text.encode()).digest()[:16] if text else None
