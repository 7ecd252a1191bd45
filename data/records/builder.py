"""Queries with their labels and texts to training records, from arrays that several processes map at once."""

import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int8, Int32, Int64

from crops_jax.errors import InputError
from crops_jax.labels import Level
from crops_jax.records import EncodedRecords, QueryRecord, encode_records
from crops_jax.text.tokenizer import Tokenizer
from data.records.document_tokens import DocumentTokenizer, DocumentTokens
from data.records.label_groups import LabelGroups

_NO_TOKENS = np.zeros(0, np.int32)


class RecordArrays(NamedTuple):
    """The inputs of records: the labels of queries, those of one query together, and the tokens of documents.

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
    """Returns the file in a RecordBuilder's folder that holds the tokens of the documents."""
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


_SUMMED = (
    "queries_without_positive",
    "texts_written",
    "texts_beyond_documents_per_query",
    "positive_texts_beyond_documents_per_query",
    "queries_beyond_documents_per_query",
    "queries_cut",
)


_BY_LEVEL = "texts_written_by_level"


def text_counts(
    groups: LabelGroups, has_text: Bool[np.ndarray, "rows"], chosen: Bool[np.ndarray, "rows"], *, queries_cut: int
) -> dict[str, Any]:
    """Counts of the queries that have texts; those of several parts of a label table are put together by `sum_counts`.

    Args:
      has_text: rows whose document has a text.
      chosen: those of them whose text is written.
      queries_cut: queries that were longer than the limit.
    """
    left = has_text & ~chosen
    positive = groups.levels >= Level.POSITIVE
    has_documents = np.bincount(groups.row_queries[chosen], minlength=len(groups.queries)) > 0
    levels = Counter(groups.levels[chosen].tolist())
    counted = (
        int((has_documents & ~with_positive(groups)).sum()),
        int(chosen.sum()),
        int(left.sum()),
        int((left & positive).sum()),
        len(np.unique(groups.row_queries[left])),
        queries_cut,
    )
    return {
        **dict(zip(_SUMMED, counted, strict=True)),
        _BY_LEVEL: {str(level): levels[level] for level in sorted(levels)},
    }


def sum_counts(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The counts of a whole from those of its parts, which have no query in common."""
    totals, levels = Counter(dict.fromkeys(_SUMMED, 0)), Counter()
    for part in parts:
        totals.update({name: part[name] for name in _SUMMED})
        levels.update(part[_BY_LEVEL])
    return {**totals, _BY_LEVEL: dict(sorted(levels.items()))}


def nothing_to_train_on(labels: str, logs: str) -> InputError:
    """Returns the error for labels from which no record of the split train can be written."""
    return InputError(
        f"--labels {labels}: no query to train on has a document whose text --logs {logs} knows; give the logs that "
        "hold the labelled documents"
    )


def with_positive(groups: LabelGroups) -> Bool[np.ndarray, "queries"]:
    """Returns a mask of the queries that have a document of level 4 or 5."""
    # The highest level of a query stands first.
    return groups.levels[groups.bounds[:-1]] >= Level.POSITIVE
