"""Writes the tokens of all documents beside the records, from which launch.train mines negatives with its own model."""

import collections
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from crops_jax import records
from crops_jax.errors import InputError
from crops_jax.hashing import document_id_words
from crops_jax.program.progress import ProgressLine
from data.backends.connection import arrow_batches
from data.records.document_tokens import DOCUMENT_TABLES, JoinedTokens
from data.tables import LogTables

_DOCUMENTS_PER_TASK = 1024
_NONE = np.zeros(0, np.int32)


def write_all_documents(
    logs: LogTables,
    directory: Path,
    *,
    tokenize: Callable[[Iterable[pa.RecordBatch]], Iterator[JoinedTokens]],
    num_shards: int,
    scored: bool,
) -> dict[str, int]:
    """Writes the split of all documents: one record for each document with a text, in the order of the table.

    Documents that a language model wrote are no documents of the product and are left out.

    Args:
      logs: the log tables.
      directory: the folder of the records.
      tokenize: a function that maps a DocumentTokenizer over its tasks, in this process or in worker processes.
      num_shards: the maximum number of files.
      scored: whether the records have scores, so that those of documents need the field too.

    Returns:
      all_documents, the number of documents, and all_documents_cut, the number of them that were cut.
    """
    ids: collections.deque[list[str]] = collections.deque()
    cut = 0

    def tasks() -> Iterator[pa.RecordBatch]:
        connection = logs.connect()
        table = connection.table("documents").select(*DOCUMENT_TABLES["documents"])
        for batch in arrow_batches(connection, table, rows=_DOCUMENTS_PER_TASK):
            ids.append(batch.column("doc_id").to_pylist())
            yield batch

    def examples() -> Iterator[records.QueryRecord]:
        nonlocal cut
        for tokens, sizes, cut_here in tokenize(tasks()):
            cut += cut_here
            words, ends = document_id_words(ids.popleft()), np.cumsum(sizes)
            for number in np.flatnonzero(sizes).tolist():
                yield records.QueryRecord(
                    query_tokens=_NONE,
                    document_ids=words[number : number + 1],
                    document_levels=np.zeros(1, np.int32),
                    document_tokens=(tokens[ends[number] - sizes[number] : ends[number]],),
                    labelled_ids=_NONE.reshape(0, 2),
                    labelled_levels=_NONE,
                    labelled_scores=np.zeros(0, np.float32) if scored else None,
                )
            bar.update(len(sizes))

    with ProgressLine(desc=f"writing {records.ALL_DOCUMENTS}", unit="documents") as bar:
        try:
            written = records.write_records(directory, examples(), num_shards=num_shards, split=records.ALL_DOCUMENTS)
        except InputError as error:
            raise InputError(f"--all-documents: {error}") from error
    return {"all_documents": written["records"], "all_documents_cut": cut}
