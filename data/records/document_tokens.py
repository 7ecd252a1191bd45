"""Reads the texts of documents from log tables, and turns them into tokens."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int32, Int64

from crops_jax.program.progress import ProgressLine
from crops_jax.text import DOCUMENT_FIELDS, document_text
from crops_jax.text.tokenizer import Tokenizer
from data.backends.connection import arrow_batches
from data.tables import LogTables

DOCUMENT_TABLES = {"documents": ("doc_id", *DOCUMENT_FIELDS), "knowledge_documents": ("doc_id", "title", "text")}
"""The tables that hold texts, and the columns that make up a text."""

_DOCUMENTS_PER_BATCH = 8192
_DOCUMENTS_PER_TASK = 1024


@dataclass(frozen=True, kw_only=True)
class DocumentTokens:
    """The positions of documents' tokens in a file of int32.

    known: whether a table has the document. lengths: 0 if the document has no text or is not known.
    cut: the number of texts that were longer than the limit.
    """

    known: Bool[np.ndarray, "documents"]
    starts: Int64[np.ndarray, "documents"]
    lengths: Int32[np.ndarray, "documents"]
    cut: int


class JoinedTokens(NamedTuple):
    """The concatenated tokens of some texts, the number of tokens of each text, and the number of texts cut."""

    tokens: Int32[np.ndarray, "tokens"]
    sizes: Int32[np.ndarray, "texts"]
    cut: int


@dataclass(frozen=True, kw_only=True)
class DocumentTokenizer:
    """Turns rows of a table with texts into tokens. Worker processes can get a copy and need no transformers."""

    tokenizer: Tokenizer
    max_tokens: int

    def __call__(self, rows: pa.RecordBatch) -> JoinedTokens:
        texts = list(map(document_text, rows.to_pylist()))
        tokens, cut = self.tokenizer.tokenize(texts, max_tokens=self.max_tokens)
        # A tokenizer can return special tokens even for an empty text.
        tokens = [text_tokens if text else text_tokens[:0] for text_tokens, text in zip(tokens, texts, strict=True)]
        sizes = np.array(list(map(len, tokens)), np.int32)
        return JoinedTokens(np.concatenate([np.zeros(0, np.int32), *tokens]), sizes, cut)


def document_texts(tables: Iterable[LogTables]) -> Iterator[str]:
    """Yields the texts of all documents and knowledge-level documents."""
    for logs in tables:
        connection = logs.connect()
        for name, columns in DOCUMENT_TABLES.items():
            if name in logs.names:
                table = connection.table(name).select(*columns)
                for batch in arrow_batches(connection, table, rows=_DOCUMENTS_PER_BATCH):
                    yield from map(document_text, batch.to_pylist())


def tokenize_documents(
    tables: Sequence[LogTables],
    doc_ids: pa.Array,
    *,
    tokenize: Callable[[Iterable[pa.RecordBatch]], Iterator[JoinedTokens]],
    file: Path,
) -> DocumentTokens:
    """Writes the tokens of the documents with these ids, from the tables documents and knowledge_documents.

    Args:
      tables: the log tables with the documents. If several have a document, the first one is used.
      doc_ids: distinct ids.
      tokenize: a function that maps a DocumentTokenizer over its tasks, in this process or in worker processes.
      file: the file to write the tokens to.

    Returns:
      The positions of the tokens in the file.
    """
    known = np.zeros(len(doc_ids), bool)
    starts, lengths = np.zeros(len(doc_ids), np.int64), np.zeros(len(doc_ids), np.int32)
    pending: collections.deque[np.ndarray] = collections.deque()
    end = cut = 0

    def tasks() -> Iterator[pa.RecordBatch]:
        for batch in _requested_rows(tables, doc_ids):
            numbers = batch.column("number").to_numpy()
            new = ~known[numbers]
            known[numbers] = True
            if new.any():
                pending.append(numbers[new])
                yield batch.filter(pa.array(new)).drop_columns(["number"])

    with (
        open(file, "wb") as spool,
        ProgressLine(total=len(doc_ids), desc="tokenizing documents", unit="documents") as bar,
    ):
        for tokens, sizes, cut_here in tokenize(tasks()):
            # The results are in the order of the tasks.
            numbers = pending.popleft()
            lengths[numbers] = sizes
            starts[numbers] = end + np.cumsum(sizes, dtype=np.int64) - sizes
            spool.write(tokens.astype("<i4", copy=False).data)
            end += len(tokens)
            cut += cut_here
            bar.update(len(numbers))
    return DocumentTokens(known=known, starts=starts, lengths=lengths, cut=cut)


def _requested_rows(tables: Iterable[LogTables], doc_ids: pa.Array) -> Iterator[pa.RecordBatch]:
    """Yields the rows of the documents with these ids, with their index in `doc_ids` as the column `number`."""
    requested = pa.table({"doc_id": doc_ids, "number": np.arange(len(doc_ids))})
    for logs in tables:
        connection = logs.connect().con
        connection.register("requested", requested)
        for name, columns in DOCUMENT_TABLES.items():
            if name in logs.names:
                selected = ", ".join(f'{name}."{column}"' for column in columns)
                joined = f"SELECT {selected}, number FROM {name} JOIN requested USING (doc_id)"
                yield from connection.sql(joined).to_arrow_reader(_DOCUMENTS_PER_TASK)
