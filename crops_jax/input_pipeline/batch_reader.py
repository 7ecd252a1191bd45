"""Lays out the records of one global batch as arrays: texts packed into rows, with their ids and levels."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from crops_jax.config import Config
from crops_jax.errors import InputError
from crops_jax.input_pipeline.document_choice import choose_documents
from crops_jax.input_pipeline.drawn_negatives import DrawnNegatives
from crops_jax.records import QueryRecord, RecordSource
from crops_jax.records.text_index import DOCUMENT_COLUMNS, RecordTexts, text_index_path
from crops_jax.text.packing import PADDING_TOKEN, PackedTexts, Rows, assign_rows, lay_out, packed_row_width, row_counts

_NO_TOKENS = np.zeros(0, np.int32)


class Batch(NamedTuple):
    """The part of a global batch that one process holds: B queries with D document columns each; N = B * D.

    Columns i*D to i*D + D - 1 hold documents of query i. A column that its record does not fill has id (0, 0) and no
    tokens. A document that occurs twice in a group has tokens only in its first column, the only one that the loss
    uses. L is the maximum number of labelled documents of a query in the records.

    texts: with shared towers one PackedTexts, which holds the queries of a group and then its documents; with two
      towers one PackedTexts of queries and one of documents. A group holds successive queries and all their documents.
    query_tokens: the tokens of each query, cut and padded with -1 to Tq tokens.
    document_ids: the id of each column's document, as two words.
    labelled_ids: the ids of each query's labelled documents, as two words; (0, 0) is padding.
    labelled_levels: the levels of these documents.
    labelled_scores: their scores by the relevance discriminator (theta); NaN for a document without one and for
      padding. None for runs that distil nothing.
    """

    texts: tuple[PackedTexts, ...]
    query_tokens: Int32[np.ndarray, "B Tq"]
    document_ids: Int32[np.ndarray, "N 2"]
    labelled_ids: Int32[np.ndarray, "B L 2"]
    labelled_levels: Int32[np.ndarray, "B L"]
    labelled_scores: Float32[np.ndarray, "B L"] | None = None


class _Chosen(NamedTuple):
    """A record, and the ids and tokens of the documents that enter the batch with its query."""

    record: QueryRecord
    ids: Int32[np.ndarray, "documents 2"]
    tokens: list[Int32[np.ndarray, "tokens"]]


class _Plan(NamedTuple):
    """The layout of a global batch, which follows from the text index alone.

    documents: the numbers of the documents of each record that enter the batch.
    drawn: the numbers of the drawn negatives that follow them; -1 for none.
    texts: the texts of all records without their tokens.
    document_tokens: the number of tokens of each document column; 0 for a column without tokens.
    rows: for each PackedTexts of the batch, the rows of the texts of each group.
    """

    documents: list[list[int]]
    drawn: Int32[np.ndarray, "B drawn"]
    texts: RecordTexts
    document_tokens: Int32[np.ndarray, "groups columns"]
    rows: list[list[Rows]]


@dataclass(frozen=True, kw_only=True)
class BatchReader:
    """Reads the records of this process's groups of a global batch and lays them out.

    All processes must use the same number of rows. Each of them therefore assigns all texts of the batch to rows, by
    the numbers of tokens in the text index, and reads no records of other processes.
    """

    source: RecordSource
    seed: int
    columns: int
    positives: int
    query_tokens: int
    document_tokens: int
    row_tokens: int
    shared_towers: bool
    scored: bool
    groups: int
    own_groups: tuple[int, ...]
    read_threads: int = 0
    drawn: DrawnNegatives | None = None
    """The negatives that follow the positives of a query; None: the documents of a query are those of its record."""
    rows: tuple[tuple[int, ...], ...] = ()
    """For each PackedTexts of a batch the numbers of rows that it can have, ascending."""

    @classmethod
    def create(cls, source: RecordSource, config: Config, *, groups: int, own_groups: tuple[int, ...]) -> "BatchReader":
        """Returns a reader with the settings of a configuration. It needs `with_row_counts` before it can read.

        Raises ValueError if the configuration distils scores and the records have none.
        """
        encoder, scored = config.encoder, config.loss.distillation != "none"
        if scored and not source.scored:
            raise ValueError(f"{source.path}: the records have no scores that {config.loss.distillation} could distil")
        return cls(
            source=source,
            seed=config.training.seed,
            columns=config.data.documents_per_query,
            positives=config.data.positives_per_query,
            query_tokens=encoder.max_query_tokens,
            document_tokens=encoder.max_document_tokens,
            row_tokens=config.data.row_tokens
            or packed_row_width(encoder.max_query_tokens, encoder.max_document_tokens),
            shared_towers=encoder.shared_towers,
            scored=scored,
            groups=groups,
            own_groups=own_groups,
            read_threads=config.data.read_threads,
        )

    def __call__(self, queries: Int64[np.ndarray, "B 2"]) -> Batch:
        """Returns this process's part of a batch.

        Args:
          queries: for each query of the global batch its position in the run and the number of its record.
        """
        plan = self._plan(queries)
        size = len(queries) // self.groups
        mine = [place for group in self.own_groups for place in range(group * size, (group + 1) * size)]
        records = self._read(queries[:, 1].tolist(), plan.texts, mine)
        own = self._chosen(records, plan, mine)
        packs = zip(
            *(
                self._pack(own[first : first + size], plan.document_tokens[group] > 0)
                for group, first in zip(self.own_groups, range(0, len(own), size), strict=True)
            )
        )
        texts = tuple(
            self._packed(pack, rows, counts) for pack, rows, counts in zip(packs, plan.rows, self.rows, strict=True)
        )
        rows, labelled = len(own), self.source.labelled_per_query
        batch = Batch(
            texts=texts,
            query_tokens=np.full((rows, self.query_tokens), PADDING_TOKEN, np.int32),
            document_ids=np.zeros((rows * self.columns, 2), np.int32),
            labelled_ids=np.zeros((rows, labelled, 2), np.int32),
            labelled_levels=np.zeros((rows, labelled), np.int32),
            labelled_scores=np.full((rows, labelled), np.nan, np.float32) if self.scored else None,
        )
        for row, (record, ids, _) in enumerate(own):
            query = self._cut(record.query_tokens, self.query_tokens)
            batch.query_tokens[row, : len(query)] = query
            first = row * self.columns
            batch.document_ids[first : first + len(ids)] = ids
            count = len(record.labelled_levels)
            batch.labelled_ids[row, :count] = record.labelled_ids
            batch.labelled_levels[row, :count] = record.labelled_levels
            if batch.labelled_scores is not None:
                batch.labelled_scores[row, :count] = record.labelled_scores
        return batch

    def rows_needed(self, samples: Sequence[Int64[np.ndarray, "B 2"]]) -> list[list[int]]:
        """Returns for each of some batches the number of rows of its greatest group, for each of its PackedTexts."""
        return [[max(rows.count for rows in of_groups) for of_groups in self._plan(sample).rows] for sample in samples]

    def with_row_counts(
        self, measured: Sequence[Sequence[int]], *, queries: int, steps: int, multiple: int
    ) -> "BatchReader":
        """Returns this reader with numbers of rows that suit the run.

        Args:
          measured: the numbers of rows that some batches of the run need, as `rows_needed` returns them.
          queries: the number of queries of a global batch.
          steps: the number of steps of the whole run.
          multiple: each number of rows is a multiple of this.
        """
        queries //= self.groups
        documents = queries * self.columns
        texts = [queries + documents] if self.shared_towers else [queries, documents]
        counts = [
            row_counts(needed, texts=number, steps=steps, multiple=multiple)
            for needed, number in zip(zip(*measured), texts, strict=True)
        ]
        return dataclasses.replace(self, rows=tuple(counts))

    def _plan(self, queries: Int64[np.ndarray, "B 2"]) -> _Plan:
        texts = self.source.text_index.texts(queries[:, 1])
        levels, starts = texts.documents[:, 2], texts.starts.tolist()
        chosen = choose_documents(
            [levels[first:last] for first, last in itertools.pairwise(starts)],
            positions=queries[:, 0],
            seed=self.seed,
            columns=self.columns if self.drawn is None else self.positives,
            positives=self.positives,
        )
        counts = np.fromiter(map(len, chosen), np.int64, len(chosen))
        entering = np.fromiter(itertools.chain.from_iterable(chosen), np.int64, counts.sum())
        row = np.repeat(np.arange(len(chosen)), counts)
        column = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        columns = np.zeros((len(chosen), self.columns, DOCUMENT_COLUMNS), np.int32)
        columns[row, column] = texts.documents[texts.starts[row] + entering]
        drawn = np.zeros((len(chosen), 0), np.int32)
        if self.drawn is not None:
            drawn = self.drawn.of(queries[:, 0])
            row, place = np.nonzero(drawn >= 0)
            columns[row, counts[row] + place] = self.drawn.texts(drawn[row, place])
        columns = columns.reshape(self.groups, -1, DOCUMENT_COLUMNS)
        document_tokens = np.minimum(columns[:, :, 3], self.document_tokens)
        for group, ids in enumerate(columns[:, :, :2]):
            document_tokens[group, ~_first_copies(ids)] = 0
        query_tokens = np.minimum(texts.query_tokens, self.query_tokens).reshape(self.groups, -1)
        lengths = [query_tokens, document_tokens]
        if self.shared_towers:
            lengths = [np.concatenate(lengths, axis=1)]
        rows = [[assign_rows(group, row_tokens=self.row_tokens) for group in of_pack] for of_pack in lengths]
        return _Plan(chosen, drawn, texts, document_tokens, rows)

    def _chosen(self, records: Sequence[QueryRecord], plan: _Plan, places: list[int]) -> list[_Chosen]:
        """Returns the records at some places of a batch with all documents that enter it."""
        own = [
            _Chosen(record, record.document_ids[chosen], [record.document_tokens[number] for number in chosen])
            for record, chosen in zip(records, (plan.documents[place] for place in places), strict=True)
        ]
        if self.drawn is None:
            return own
        numbers = [plan.drawn[place][plan.drawn[place] >= 0] for place in places]
        flat = np.concatenate([np.zeros(0, np.int32), *numbers])
        ids, tokens = self.drawn.texts(flat)[:, :2], self.drawn.tokens(flat.tolist(), threads=self.read_threads)
        ends = np.cumsum([0, *map(len, numbers)]).tolist()
        return [
            _Chosen(record, np.concatenate([of_record, ids[first:last]]), texts + tokens[first:last])
            for (record, of_record, texts), (first, last) in zip(own, itertools.pairwise(ends), strict=True)
        ]

    def _read(self, numbers: list[int], texts: RecordTexts, places: list[int]) -> list[QueryRecord]:
        """Reads the records at some places of a batch. Raises InputError if they are not those of the text index."""
        starts, document_tokens = texts.starts.tolist(), texts.documents[:, 3].tolist()
        records = self.source.read([numbers[place] for place in places], threads=self.read_threads)
        for place, record in zip(places, records, strict=True):
            tokens = [len(document) for document in record.document_tokens]
            indexed = document_tokens[starts[place] : starts[place + 1]]
            if tokens != indexed or len(record.query_tokens) != texts.query_tokens[place]:
                file, at = self.source.locate(numbers[place])
                raise InputError(
                    f"{file}: record {at} has other texts than {text_index_path(file).name} says; remove that file, "
                    "or write the records again"
                )
        return records

    def _pack(
        self, part: Sequence[_Chosen], has_tokens: Bool[np.ndarray, "columns"]
    ) -> list[list[Int32[np.ndarray, "tokens"]]]:
        """Returns the texts of a group, for each PackedTexts of the batch, in the order of _Plan.rows."""
        queries = [self._cut(entry.record.query_tokens, self.query_tokens) for entry in part]
        documents, wanted = [_NO_TOKENS] * len(has_tokens), has_tokens.tolist()
        for row, entry in enumerate(part):
            for column, tokens in enumerate(entry.tokens, start=row * self.columns):
                if wanted[column]:
                    documents[column] = self._cut(tokens, self.document_tokens)
        return [queries + documents] if self.shared_towers else [queries, documents]

    def _packed(self, texts: Sequence[list[np.ndarray]], rows: list[Rows], counts: tuple[int, ...]) -> PackedTexts:
        needed = max(of_group.count for of_group in rows)
        num_rows = next(count for count in counts if count >= needed)
        laid_out = [
            lay_out(of_group, rows[group], row_tokens=self.row_tokens, num_rows=num_rows)
            for group, of_group in zip(self.own_groups, texts, strict=True)
        ]
        return PackedTexts(*map(np.stack, zip(*laid_out)))

    def _cut(self, tokens: Int32[np.ndarray, "tokens"], limit: int) -> Int32[np.ndarray, "cut"]:
        return cut(tokens, limit, closing_token=self.source.closing_token)


def cut(tokens: Int32[np.ndarray, "tokens"], limit: int, *, closing_token: int | None) -> Int32[np.ndarray, "cut"]:
    """Returns at most `limit` tokens of a text.

    A text that is too long keeps the token that closes every text (RecordSource.closing_token, such as [SEP]), as if
    the tokenizer had cut it.
    """
    if len(tokens) <= limit:
        return tokens
    tokens = tokens[:limit].copy()
    if closing_token is not None:
        tokens[-1] = closing_token
    return tokens


def _first_copies(ids: Int32[np.ndarray, "columns 2"]) -> Bool[np.ndarray, "columns"]:
    """Returns True for each column that is the first one with its id."""
    first = np.zeros(len(ids), bool)
    first[np.unique(np.ascontiguousarray(ids).view(np.int64)[:, 0], return_index=True)[1]] = True
    return first
