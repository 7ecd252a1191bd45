"""Queries with their labels and texts to training records, from arrays that several processes map at once."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int8, Int32, Int64

from crops_jax.records import EncodedRecords, QueryRecord, encode_records
from crops_jax.text.tokenizer import Tokenizer
from data.document_tokens import DocumentTokenizer, DocumentTokens
from data.label_groups import LabelGroups

_NO_TOKENS = np.zeros(0, np.int32)


class RecordArrays(NamedTuple):
    """What records are built from: labels of queries, those of one query together, and the tokens of documents.

    bounds: the rows of query i are bounds[i] to bounds[i + 1] - 1.
    documents: of every row, its document's place in id_words, starts and lengths.
    chosen: the rows whose documents get their tokens written.
    tokens: those of document d are tokens[starts[d] : starts[d] + lengths[d]].
    """

    bounds: Int64[np.ndarray, "queries+1"]
    documents: Int32[np.ndarray, "rows"]
    levels: Int8[np.ndarray, "rows"]
    chosen: Bool[np.ndarray, "rows"]
    id_words: Int32[np.ndarray, "documents 2"]
    starts: Int64[np.ndarray, "documents"]
    lengths: Int32[np.ndarray, "documents"]
    tokens: Int32[np.ndarray, "tokens"]

    def records(
        self, numbers: Int64[np.ndarray, "queries"], query_tokens: list[Int32[np.ndarray, "tokens"]]
    ) -> Iterator[QueryRecord]:
        """The records of the queries with these numbers and tokens."""
        first, last = self.bounds[numbers].tolist(), self.bounds[numbers + 1].tolist()
        for query, start, end in zip(query_tokens, first, last, strict=True):
            labelled, levels = self.documents[start:end], self.levels[start:end].astype(np.int32)
            with_text = self.chosen[start:end]
            shown = labelled[with_text]
            begins = self.starts[shown]
            ends = begins + self.lengths[shown]
            yield QueryRecord(
                query_tokens=query,
                document_ids=self.id_words[shown],
                document_levels=levels[with_text],
                document_tokens=tuple(self.tokens[b:e] for b, e in zip(begins.tolist(), ends.tolist())),
                labelled_ids=self.id_words[labelled],
                labelled_levels=levels,
            )


_KEPT = RecordArrays._fields[:-1]
"""All but the tokens, which are written as they come."""


class SomeQueries(NamedTuple):
    """Queries of a LabelGroups: their texts and their numbers there."""

    texts: list[str]
    numbers: Int64[np.ndarray, "queries"]


class BuiltRecords(NamedTuple):
    """The records of some queries, and how many of these were cut."""

    encoded: EncodedRecords
    cut: int


@dataclass(frozen=True, kw_only=True)
class RecordBuilder:
    """Builds the records of some queries; can be copied to worker processes, which map the arrays of `folder`.

    folder: what `keep_arrays` wrote. max_query_tokens: of a query.
    """

    folder: Path
    tokenizer: Tokenizer
    max_query_tokens: int

    def __call__(self, queries: SomeQueries) -> BuiltRecords:
        tokens, cut = self.tokenizer.tokenize(queries.texts, max_tokens=self.max_query_tokens)
        return BuiltRecords(encode_records(self._arrays.records(queries.numbers, tokens)), cut)

    @functools.cached_property
    def _arrays(self) -> RecordArrays:
        # Plain views of the maps: slices of a np.memmap cost several times more.
        kept = [np.asarray(np.load(_array_file(self.folder, name), mmap_mode="r")) for name in _KEPT]
        file = token_file(self.folder)
        tokens = np.asarray(np.memmap(file, "<i4", mode="r")) if file.stat().st_size else _NO_TOKENS
        return RecordArrays(*kept, tokens=tokens)


@dataclass(frozen=True, kw_only=True)
class RecordWorker:
    """All that a worker process does for data.write_records: rows of documents to tokens, queries to records."""

    documents: DocumentTokenizer
    records: RecordBuilder

    def __call__(self, task: Any) -> Any:
        return self.records(task) if isinstance(task, SomeQueries) else self.documents(task)


def token_file(folder: Path) -> Path:
    """Where a RecordBuilder's folder holds the tokens of the documents."""
    return folder / "tokens.int32"


def keep_arrays(folder: Path, groups: LabelGroups, texts: DocumentTokens, chosen: Bool[np.ndarray, "rows"]) -> None:
    """Writes what a RecordBuilder maps into its folder, where the tokens of `texts` lie already.

    Args:
      chosen: the rows of `groups` whose documents get their tokens written.
    """
    arrays = RecordArrays(
        bounds=groups.bounds,
        documents=groups.documents,
        levels=groups.levels,
        chosen=chosen,
        id_words=groups.id_words,
        starts=texts.starts,
        lengths=texts.lengths,
        tokens=_NO_TOKENS,
    )
    for name in _KEPT:
        np.save(_array_file(folder, name), getattr(arrays, name), allow_pickle=False)


def _array_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"
