"""The label table of launch.mine_negatives: the labels of each query, and the mined rows that are added.

All data that grows with the label table stays in DuckDB, which spills it to disk if it does not fit in memory, or is
read in batches.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int64

from crops_jax.hashing import sha256_hashes
from crops_jax.labels import Level
from crops_jax.retrieval.hard_negatives import Labelled
from data.labels.assign_levels import LABEL_SCHEMA
from data.labels.files import ROW_GROUP_ROWS, write_label_batches
from data.perspectives.knowledge_level import SOURCE as WRITTEN
from data.records.label_groups import dev_threshold
from data.tables.duckdb_session import duckdb_size

SOURCE = "model_mined"


class QueryCounts(NamedTuple):
    """Counts of the queries of a label table.

    queries: queries with a positive and a vector. dev: queries of the split dev, which are in none of the other
    counts. missing: queries with a positive but without a vector; first_missing
    is the first of these. without_positive: the other queries, for which nothing is mined. unembedded_positives:
    positives of `queries` whose document has no vector. indexed: labels of `queries` except those of generated
    documents, which are in no index. embedded: labels among `indexed` whose document has a vector.
    """

    queries: int
    dev: int
    missing: int
    first_missing: str | None
    without_positive: int
    unembedded_positives: int
    indexed: int
    embedded: int


class MinedLabels:
    """A label table, the ids of the vectors, and the rows that were mined so far."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        query_ids: list[str],
        doc_ids: list[str],
        memory_limit: str,
        replace_negatives: bool = False,
        dev_fraction: float = 0.0,
    ):
        """
        Args:
          connection: a connection with a view `labels`, as data.labels.table.open_labels returns it.
          query_ids, doc_ids: the ids of the vectors of queries and of documents, in the order of the vectors.
          memory_limit: the memory limit of DuckDB, such as "1GB".
          replace_negatives: whether the negatives of the table are left out, except those of dev queries.
          dev_fraction: the share of the queries for which nothing is mined, as data.write_records chooses them.

        Raises:
          InputError: the memory limit is not a size.
        """
        self.connection = connection
        connection.execute("SET memory_limit = $1", [duckdb_size(memory_limit)])
        self._keep("vectors", query=pa.array(query_ids, pa.string()), vector=np.arange(len(query_ids)))
        self._keep("corpus", doc_id=pa.array(doc_ids, pa.string()), document=np.arange(len(doc_ids)))
        self._keep("dev", query=pa.array(self._dev_queries(dev_fraction), pa.string()))
        kept = f"level >= {Level.POSITIVE:d} OR query IN (FROM dev)" if replace_negatives else "true"
        connection.execute(f"CREATE TEMP VIEW kept AS SELECT * FROM labels WHERE {kept}")
        connection.execute(
            "CREATE TEMP TABLE positives AS SELECT query, count(*) AS positives FROM kept "
            f"WHERE level >= {Level.POSITIVE:d} AND query NOT IN (FROM dev) GROUP BY query"
        )
        # Queries with the same number of positives are adjacent, because their rankings are searched to the same depth.
        connection.execute(
            "CREATE TEMP TABLE asked AS SELECT row_number() OVER (ORDER BY positives, query) - 1 AS place, query, "
            "vector FROM positives JOIN vectors USING (query)"
        )
        connection.execute(
            "CREATE TEMP TABLE known AS SELECT place, document, "
            f"level >= {Level.POSITIVE:d} AS positive, source = '{WRITTEN}' AS written "
            "FROM kept JOIN asked USING (query) LEFT JOIN corpus USING (doc_id) ORDER BY place, document"
        )
        connection.execute("CREATE TEMP TABLE mined (place BIGINT, document BIGINT, score DOUBLE, new BOOLEAN)")

    def _keep(self, name: str, **columns: pa.Array | np.ndarray) -> None:
        self.connection.register("arriving", pa.table(columns))
        self.connection.execute(f"CREATE TEMP TABLE {name} AS FROM arriving")
        self.connection.unregister("arriving")

    def _dev_queries(self, fraction: float) -> list[str]:
        """Returns the queries whose hash puts them into the split dev."""
        if not fraction:
            return []
        queries = (
            self.connection.sql("SELECT DISTINCT query FROM labels ORDER BY query").to_arrow_table()[0].to_pylist()
        )
        threshold = dev_threshold(fraction)
        return [query for query, bits in zip(queries, sha256_hashes(queries).tolist(), strict=True) if bits < threshold]

    def query_counts(self) -> QueryCounts:
        """Returns the counts of the queries of the label table."""
        every, dev, queries, missing, first = self._row(
            "SELECT (SELECT count(DISTINCT query) FROM labels), (SELECT count(*) FROM dev), count(vector), "
            "count(*) FILTER (vector IS NULL), "
            "min(query) FILTER (vector IS NULL) FROM positives LEFT JOIN vectors USING (query)"
        )
        unembedded, indexed, embedded = self._row(
            "SELECT count(*) FILTER (positive AND document IS NULL), count(*) FILTER (NOT written), "
            "count(*) FILTER (NOT written AND document IS NOT NULL) FROM known"
        )
        return QueryCounts(
            queries=queries,
            dev=dev,
            missing=missing,
            first_missing=first,
            without_positive=every - dev - queries - missing,
            unembedded_positives=unembedded,
            indexed=indexed,
            embedded=embedded,
        )

    def blocks(self, queries: int) -> Iterator[tuple[int, Int64[np.ndarray, "block"], list[str], Labelled]]:
        """Yields blocks of the queries that have a positive and a vector.

        Each block is (position of its first query, rows of its vectors, queries, labels). The labels have only
        documents with a vector, and the row of a query in them counts from the first query of the block.
        """
        (count,) = self._row("SELECT count(*) FROM asked")
        for first in range(0, count, queries):
            here = f"place >= {first} AND place < {first + queries}"
            asked = self.connection.sql(f"SELECT query, vector FROM asked WHERE {here} ORDER BY place").to_arrow_table()
            known = self.connection.sql(
                f"SELECT place - {first} AS query, document, positive FROM known "
                f"WHERE {here} AND document IS NOT NULL ORDER BY place, document"
            ).to_arrow_table()
            labelled = Labelled(*(known.column(name).to_numpy() for name in Labelled._fields))
            yield first, asked.column("vector").to_numpy(), asked.column("query").to_pylist(), labelled

    def add(
        self,
        *,
        place: Int64[np.ndarray, "rows"],
        document: Int64[np.ndarray, "rows"],
        score: Float64[np.ndarray, "rows"],
        new: Bool[np.ndarray, "rows"],
    ) -> None:
        """Adds mined rows: new ones, and negatives of the table that were mined again."""
        self.connection.register(
            "arriving", pa.table({"place": place, "document": document, "score": score, "new": new})
        )
        self.connection.execute("INSERT INTO mined FROM arriving")
        self.connection.unregister("arriving")

    def write(self, directory: Path, *, level: int) -> dict[str, int]:
        """Writes DIRECTORY/labels.parquet: the rows of the table and the mined ones, sorted by query and doc_id.

        A negative of the table that was mined again keeps its row and gets an entry of evidence. If the mined level is
        higher than its own, the row also gets the mined level, source and score, as data.labels.assign_levels resolves
        conflicts.

        Returns:
          The counts "rows", "new", "met_again" (negatives of the table that were mined again) and "raised" (those that
          got a higher level).
        """
        counts: dict[str, int] = dict.fromkeys(("rows", "new", "met_again", "raised"), 0)
        merged = self.connection.sql(
            "SELECT coalesce(l.query, m.query) AS query, coalesce(l.doc_id, m.doc_id) AS doc_id, l.level, l.source, "
            "l.score, l.evidence, m.score AS mined FROM kept AS l FULL JOIN "
            "(SELECT query, doc_id, score FROM mined JOIN asked USING (place) JOIN corpus USING (document)) AS m "
            "ON l.query = m.query AND l.doc_id = m.doc_id ORDER BY 1, 2"
        )
        batches = merged.to_arrow_reader(ROW_GROUP_ROWS)
        write_label_batches((_with_mined(batch, level, counts) for batch in batches), directory)
        return counts

    def histogram(self, directory: Path, column: str) -> dict[str, int]:
        """Returns the number of rows for each value of a column of the table that `write` wrote."""
        file = str(directory / "labels.parquet")
        table = self.connection.read_parquet(file)
        counts = table.aggregate(f"CAST({column} AS VARCHAR) AS value, count(*) AS rows", column).order("value")
        return dict(counts.fetchall())

    def _row(self, query: str) -> tuple:
        return self.connection.execute(query).fetchall()[0]


def _with_mined(batch: pa.RecordBatch, level: int, counts: dict[str, int]) -> pa.RecordBatch:
    """Returns the label rows of a batch of the join: each mined pair becomes a row or an entry of evidence."""
    scores = batch.column("mined")
    is_mined = pc.is_valid(scores)
    is_new = pc.is_null(batch.column("level"))
    is_raised = pc.and_(is_mined, pc.less(pc.fill_null(batch.column("level"), -1), level))
    counts["rows"] += len(batch)
    counts["new"] += pc.sum(is_new).as_py() or 0
    counts["met_again"] += pc.sum(pc.and_not(is_mined, is_new)).as_py() or 0
    counts["raised"] += pc.sum(pc.and_not(is_raised, is_new)).as_py() or 0
    again = zip(batch.column("evidence").filter(is_mined).to_pylist(), scores.filter(is_mined).to_pylist())
    evidence = pa.array([_with_entry(old, level, score) for old, score in again], pa.string())
    columns = {
        "query": batch.column("query"),
        "doc_id": batch.column("doc_id"),
        "level": pc.if_else(is_raised, pa.scalar(level, pa.int8()), batch.column("level")),
        "source": pc.if_else(is_raised, SOURCE, batch.column("source")),
        "score": pc.if_else(is_raised, scores, batch.column("score")),
        "evidence": pc.replace_with_mask(batch.column("evidence"), is_mined, evidence),
    }
    return pa.RecordBatch.from_pydict(columns, LABEL_SCHEMA)


def _with_entry(evidence: str | None, level: int, score: float) -> str:
    """Returns the evidence with a new entry in the form of data.labels.assign_levels; others keep their bytes."""
    number = f"{score:.6f}".rstrip("0")
    number += "0" if number.endswith(".") else ""
    entry = (
        f'{{"source": "{SOURCE}", "level": {level}, "score": {number}, '
        '"via_query": null, "gap_seconds": null, "supporters": null}'
    )
    return f"[{', '.join(sorted({entry, *_entries(evidence)}))}]"


def _entries(evidence: str | None) -> Iterator[str]:
    """Yields the entries of a JSON list, each with unchanged text. Any other text is one entry."""
    text = (evidence or "").strip()
    if not text.startswith("["):
        yield from [text] if text else []
        return
    decoder, at = json.JSONDecoder(), 1
    while (at := _after_blanks(text, at)) < len(text) - 1:
        _, end = decoder.raw_decode(text, at)
        yield text[at:end]
        at = end


def _after_blanks(text: str, at: int) -> int:
    while text[at] in ", \t\r\n":
        at += 1
    return at
