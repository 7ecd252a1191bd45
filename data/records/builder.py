"""Builds training records from queries, labels and texts, in arrays that several processes can map at once."""

import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int32, Int64

from crops_jax.artifacts.arrays import write_array
from crops_jax.errors import InputError
from crops_jax.labels import Level
from crops_jax.records import EncodedRecords, QueryRecord, encode_records
from crops_jax.text.tokenizer import Tokenizer
from data.records.document_tokens import DocumentTokenizer, DocumentTokens
from data.records.label_groups import LabelGroups

_NO_TOKENS = np.zeros(0, np.int32)
NO_SCORES = np.zeros(0, np.float32)
"""The scores of records without scores."""


class RecordArrays(NamedTuple):
    """The inputs of records: the labels, with the rows of a query next to each other, and the tokens of documents.

    bounds: the rows of query i are bounds[i] to bounds[i + 1] - 1.
    documents: for each row, the index of its document in id_words, starts and lengths.
    chosen: a mask of the rows whose documents have their tokens written.
    scores: theta of each row, NaN for a row without a score; empty for records without scores.
    tokens: the tokens of all documents; document d has tokens[starts[d] : starts[d] + lengths[d]].
    """

    bounds: Int64[np.ndarray, "queries+1"]
    documents: Int32[np.ndarray, "rows"]
    levels: Int8[np.ndarray, "rows"]
    chosen: Bool[np.ndarray, "rows"]
    id_words: Int32[np.ndarray, "documents 2"]
    starts: Int64[np.ndarray, "documents"]
    lengths: Int32[np.ndarray, "documents"]
    scores: Float32[np.ndarray, "scored_rows"]
    tokens: Int32[np.ndarray, "tokens"]

    def records(
        self, numbers: Int64[np.ndarray, "queries"], query_tokens: list[Int32[np.ndarray, "tokens"]]
    ) -> Iterator[QueryRecord]:
        """Yields the records of the queries with these indices and tokens."""
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
                labelled_scores=self.scores[start:end] if self.scores.size else None,
            )


_ARRAY_NAMES = RecordArrays._fields[:-1]
"""The arrays that are written as files of their own; the tokens are written while they are produced."""


class SomeQueries(NamedTuple):
    """Queries of a LabelGroups: their texts and their indices in it."""

    texts: list[str]
    numbers: Int64[np.ndarray, "queries"]


class BuiltRecords(NamedTuple):
    """The records of some queries, and the number of queries that were cut."""

    encoded: EncodedRecords
    cut: int


@dataclass(frozen=True, kw_only=True)
class RecordBuilder:
    """Builds the records of some queries. It can be copied to worker processes, which map the arrays of `folder`.

    folder: the folder that `keep_arrays` wrote. max_query_tokens: the maximum number of tokens of a query.
    """

    folder: Path
    tokenizer: Tokenizer
    max_query_tokens: int

    def __call__(self, queries: SomeQueries) -> BuiltRecords:
        tokens, cut = self.tokenizer.tokenize(queries.texts, max_tokens=self.max_query_tokens)
        return BuiltRecords(encode_records(self._arrays.records(queries.numbers, tokens)), cut)

    @functools.cached_property
    def _arrays(self) -> RecordArrays:
        # Plain arrays view the maps, because slicing a np.memmap takes several times longer.
        arrays = [np.asarray(np.load(_array_file(self.folder, name), mmap_mode="r")) for name in _ARRAY_NAMES]
        file = token_file(self.folder)
        tokens = np.asarray(np.memmap(file, "<i4", mode="r")) if file.stat().st_size else _NO_TOKENS
        return RecordArrays(*arrays, tokens=tokens)


@dataclass(frozen=True, kw_only=True)
class RecordWorker:
    """The work of a worker process of data.write_records: it turns documents into tokens, and queries into records."""

    documents: DocumentTokenizer
    records: RecordBuilder

    def __call__(self, task: Any) -> Any:
        return self.records(task) if isinstance(task, SomeQueries) else self.documents(task)


def token_file(folder: Path) -> Path:
    """Returns the file in a RecordBuilder's folder that holds the tokens of the documents."""
    return folder / "tokens.int32"


def keep_arrays(
    folder: Path,
    groups: LabelGroups,
    texts: DocumentTokens,
    chosen: Bool[np.ndarray, "rows"],
    scores: Float32[np.ndarray, "scored_rows"] = NO_SCORES,
) -> None:
    """Writes the arrays that a RecordBuilder maps into its folder, which already holds the tokens of `texts`.

    Args:
      folder: the folder of the RecordBuilder.
      groups: the labels by query.
      texts: the positions of the tokens of the documents.
      chosen: a mask of the rows of `groups` whose documents have their tokens written.
      scores: theta of the rows of `groups`; empty for records without scores.
    """
    arrays = RecordArrays(
        bounds=groups.bounds,
        documents=groups.documents,
        levels=groups.levels,
        chosen=chosen,
        id_words=groups.id_words,
        starts=texts.starts,
        lengths=texts.lengths,
        scores=scores,
        tokens=_NO_TOKENS,
    )
    for name in _ARRAY_NAMES:
        write_array(_array_file(folder, name), getattr(arrays, name))


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
    """Returns the counts of texts and queries. `sum_counts` adds the counts of several parts of a label table.

    Args:
      groups: the labels by query.
      has_text: a mask of the rows whose document has a text.
      chosen: a mask of the rows whose text is written.
      queries_cut: the number of queries that were longer than the limit.
    """
    omitted = has_text & ~chosen
    positive = groups.levels >= Level.POSITIVE
    has_documents = np.bincount(groups.row_queries[chosen], minlength=len(groups.queries)) > 0
    levels = Counter(groups.levels[chosen].tolist())
    counts = (
        int((has_documents & ~with_positive(groups)).sum()),
        int(chosen.sum()),
        int(omitted.sum()),
        int((omitted & positive).sum()),
        len(np.unique(groups.row_queries[omitted])),
        queries_cut,
    )
    return {
        **dict(zip(_SUMMED, counts, strict=True)),
        _BY_LEVEL: {str(level): levels[level] for level in sorted(levels)},
    }


def sum_counts(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Returns the counts of a label table from the counts of its parts, which have no query in common."""
    totals, levels = Counter(dict.fromkeys(_SUMMED, 0)), Counter()
    for part in parts:
        totals.update({name: part[name] for name in _SUMMED})
        levels.update(part[_BY_LEVEL])
    return {**totals, _BY_LEVEL: dict(sorted(levels.items()))}


def nothing_to_train_on(labels: str, logs: str) -> InputError:
    """Returns the error for labels from which no record of the split train can be written."""
    return InputError(
        f"--labels {labels}: no query to train on has a document whose text is in --logs {logs}; use the logs that "
        "hold the labelled documents"
    )


def with_positive(groups: LabelGroups) -> Bool[np.ndarray, "queries"]:
    """Returns a mask of the queries that have a document of level 4 or 5."""
    # The first row of a query has its highest level.
    return groups.levels[groups.bounds[:-1]] >= Level.POSITIVE
