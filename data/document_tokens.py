"""The texts of documents that log tables know: learnt from, and turned into tokens."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int32, Int64
from tqdm import tqdm

from crops_jax.text import DOCUMENT_FIELDS, document_text
from crops_jax.tokenizer import Tokenizer
from data.arrow_batches import arrow_batches
from data.tables import LogTables

_DOCUMENTS_AT_ONCE = 8192
_TABLES = {"documents": ("doc_id", *DOCUMENT_FIELDS), "knowledge_documents": ("doc_id", "title", "text")}


@dataclass(frozen=True, kw_only=True)
class DocumentTokens:
    """Tokens of some documents, one after the other.

    known: whether a table has the document. lengths: 0 where it has no text or is not known.
    cut: how many texts were longer than the limit.
    """

    known: Bool[np.ndarray, "documents"]
    starts: Int64[np.ndarray, "documents"]
    lengths: Int32[np.ndarray, "documents"]
    tokens: Int32[np.ndarray, "tokens"]
    cut: int

    def __getitem__(self, document: int) -> Int32[np.ndarray, "tokens_of_it"]:
        start = self.starts[document]
        return self.tokens[start : start + self.lengths[document]]


def document_texts(logs: LogTables) -> Iterator[str]:
    """The texts of all documents and knowledge-level documents."""
    for batch in _batches(logs):
        yield from map(document_text, batch.to_pylist())


def tokenize_documents(logs: LogTables, doc_ids: pa.Array, *, tokenizer: Tokenizer, max_tokens: int) -> DocumentTokens:
    """Tokens of the documents with these ids, wherever they stand: in documents or in knowledge_documents."""
    known = np.zeros(len(doc_ids), bool)
    starts, lengths = np.zeros(len(doc_ids), np.int64), np.zeros(len(doc_ids), np.int32)
    parts, end, cut = [np.zeros(0, np.int32)], 0, 0
    with tqdm(total=len(doc_ids), desc="documents", unit="document", file=sys.stderr, delay=2) as bar:
        for batch in _batches(logs):
            places = pc.index_in(batch.column("doc_id"), value_set=doc_ids)
            wanted = batch.filter(pc.is_valid(places)).to_pylist()
            if not wanted:
                continue
            numbers = pc.drop_null(places).to_numpy(zero_copy_only=False)
            texts = [document_text(document) for document in wanted]
            tokens, cut_here = tokenizer.tokenize(texts, max_tokens=max_tokens)
            sizes = np.array([len(one) if text else 0 for one, text in zip(tokens, texts)], np.int32)
            known[numbers], lengths[numbers] = True, sizes
            starts[numbers] = end + np.cumsum(sizes) - sizes
            parts += [one for one, size in zip(tokens, sizes) if size]
            end += int(sizes.sum())
            cut += cut_here
            bar.update(len(wanted))
    return DocumentTokens(known=known, starts=starts, lengths=lengths, tokens=np.concatenate(parts), cut=cut)


def _batches(logs: LogTables) -> Iterator[pa.RecordBatch]:
    connection = logs.connect()
    for name, columns in _TABLES.items():
        if name in logs.names:
            table = connection.table(name).select(*columns)
            yield from arrow_batches(connection, table, rows=_DOCUMENTS_AT_ONCE)
