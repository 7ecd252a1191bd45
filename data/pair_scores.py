"""Distinct pairs leave Ibis, are scored through crops_jax, and come back as a table to be joined."""

from collections.abc import Iterator

import ibis
import numpy as np
import pyarrow as pa
from tqdm import tqdm

from crops_jax.discriminator import Discriminator
from crops_jax.discriminator.similarity import Similarity
from crops_jax.text import DOCUMENT_FIELDS, document_text
from data.backends.connection import arrow_batches

_DOCUMENTS_AT_ONCE = 20_000
_DECIMALS = 6


def similarity_table(connection, pairs: ibis.Table, similarity: Similarity) -> ibis.Table:
    """query, via_query, similarity of the distinct (query, via_query) of a table."""
    found = pairs.select("query", "via_query").distinct().order_by("query", "via_query").to_pyarrow()
    scores = similarity.score(found["query"].to_pylist(), found["via_query"].to_pylist())
    return _as_table(connection, found.append_column("similarity", _rounded(scores)))


def theta_table(connection, pairs: ibis.Table, discriminator: Discriminator) -> ibis.Table:
    """query, doc_id, score of the distinct (query, doc_id) of a table.

    Documents pass through memory some thousands at a time, each once, and each distinct pair is scored once. Pairs
    whose document is not in the table documents get no row.
    """
    pairs = pairs.select("query", "doc_id").distinct()
    documents = connection.table("documents")
    wanted = documents.semi_join(pairs, "doc_id").select("doc_id", *DOCUMENT_FIELDS).order_by("doc_id")
    found = pairs.semi_join(documents, "doc_id").order_by("doc_id", "query").to_pyarrow()
    scores = np.empty(len(found), np.float32)
    # Both are in the same order of doc_id: the pairs of a stretch of documents are a stretch of pairs.
    lengths = _run_lengths(found["doc_id"])
    queries = found["query"]
    first_document = first_pair = 0
    with tqdm(total=len(found), desc="scoring pairs", unit="pair", delay=2) as bar:
        for texts in _texts(connection, wanted):
            counts = lengths[first_document : first_document + len(texts)]
            document_of = np.repeat(np.arange(len(texts)), counts)
            for part in _parts(document_of, discriminator.pairs_at_once):
                scores[first_pair : first_pair + len(part)] = discriminator.score(
                    queries.slice(first_pair, len(part)).to_pylist(), [texts[document] for document in part]
                )
                first_pair += len(part)
                bar.update(len(part))
            first_document += len(texts)
    return _as_table(connection, found.append_column("score", _rounded(scores)))


def _texts(connection, documents: ibis.Table) -> Iterator[list[str]]:
    for batch in arrow_batches(connection, documents, rows=_DOCUMENTS_AT_ONCE):
        yield [document_text(document) for document in batch.to_pylist()]


def _parts(documents: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(documents), size):
        yield documents[start : start + size]


def _run_lengths(values: pa.ChunkedArray) -> np.ndarray:
    indices = values.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return np.bincount(indices) if len(indices) else np.zeros(0, np.int64)


def _rounded(scores: np.ndarray) -> pa.Array:
    # What is written is what is compared with alpha and beta.
    return pa.array(np.round(scores.astype(np.float64), _DECIMALS))


def _as_table(connection, table: pa.Table) -> ibis.Table:
    return connection.create_table(ibis.util.gen_name("scores"), table, temp=True)
