"""Lays out the records of one global batch as arrays: texts packed into rows, with their ids and levels."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from crops_jax.config import Config
from crops_jax.input_pipeline.document_choice import choose_documents
from crops_jax.records import QueryRecord, RecordSource
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
    """A record, and the numbers of its documents that enter the batch."""

    record: QueryRecord
    documents: list[int]


@dataclass(frozen=True, kw_only=True)
class BatchReader:
    """Reads the records of one global batch and lays out the groups of this process.

    Every process reads the whole batch, so that all of them use the same number of rows.
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
        )

    def __call__(self, queries: Int64[np.ndarray, "B 2"]) -> Batch:
        """Returns this process's part of a batch.

        Args:
          queries: for each query of the global batch its position in the run and the number of its record.
        """
        chosen = self._choose(queries)
        packs = self._packs(chosen)
        texts = tuple(self._packed(pack, counts) for pack, counts in zip(packs, self.rows, strict=True))
        size = len(chosen) // self.groups
        own = [entry for group in self.own_groups for entry in chosen[group * size : (group + 1) * size]]
        rows, labelled = len(own), self.source.labelled_per_query
        batch = Batch(
            texts=texts,
            query_tokens=np.full((rows, self.query_tokens), PADDING_TOKEN, np.int32),
            document_ids=np.zeros((rows * self.columns, 2), np.int32),
            labelled_ids=np.zeros((rows, labelled, 2), np.int32),
            labelled_levels=np.zeros((rows, labelled), np.int32),
            labelled_scores=np.full((rows, labelled), np.nan, np.float32) if self.scored else None,
        )
        for row, (record, documents) in enumerate(own):
            query = self._cut(record.query_tokens, self.query_tokens)
            batch.query_tokens[row, : len(query)] = query
            first = row * self.columns
            batch.document_ids[first : first + len(documents)] = record.document_ids[documents]
            count = len(record.labelled_levels)
            batch.labelled_ids[row, :count] = record.labelled_ids
            batch.labelled_levels[row, :count] = record.labelled_levels
            if batch.labelled_scores is not None:
                batch.labelled_scores[row, :count] = record.labelled_scores
        return batch

    def with_row_counts(self, samples: Sequence[Int64[np.ndarray, "B 2"]], *, multiple: int) -> "BatchReader":
        """Returns this reader with numbers of rows that suit the run.

        Args:
          samples: some batches of the run, as `__call__` takes them. Their texts are measured.
          multiple: each number of rows is a multiple of this.
        """
        measured = [
            [max(rows.count for _, rows in pack) for pack in self._packs(self._choose(sample))] for sample in samples
        ]
        queries = len(samples[0]) // self.groups
        documents = queries * self.columns
        texts = [queries + documents] if self.shared_towers else [queries, documents]
        counts = [
            row_counts(needed, texts=number, multiple=multiple)
            for needed, number in zip(zip(*measured), texts, strict=True)
        ]
        return dataclasses.replace(self, rows=tuple(counts))

    def _choose(self, queries: Int64[np.ndarray, "B 2"]) -> list[_Chosen]:
        records = [self.source[number] for number in queries[:, 1].tolist()]
        levels = [record.document_levels for record in records]
        chosen = choose_documents(
            levels, positions=queries[:, 0], seed=self.seed, columns=self.columns, positives=self.positives
        )
        return [_Chosen(record, documents) for record, documents in zip(records, chosen, strict=True)]

    def _packs(self, chosen: Sequence[_Chosen]) -> list[list[tuple[list[np.ndarray], Rows]]]:
        """Returns the texts and their rows, for each PackedTexts of the batch and each group."""
        size = len(chosen) // self.groups
        packs = []
        for group in range(self.groups):
            part = chosen[group * size : (group + 1) * size]
            queries, documents = self._query_texts(part), self._document_texts(part)
            packs.append([queries + documents] if self.shared_towers else [queries, documents])
        return [
            [(texts, assign_rows([len(text) for text in texts], row_tokens=self.row_tokens)) for texts in pack]
            for pack in zip(*packs)
        ]

    def _packed(self, pack: list[tuple[list[np.ndarray], Rows]], counts: tuple[int, ...]) -> PackedTexts:
        needed = max(rows.count for _, rows in pack)
        num_rows = next(count for count in counts if count >= needed)
        laid_out = [lay_out(*pack[group], row_tokens=self.row_tokens, num_rows=num_rows) for group in self.own_groups]
        return PackedTexts(*map(np.stack, zip(*laid_out)))

    def _query_texts(self, part: Sequence[_Chosen]) -> list[np.ndarray]:
        return [self._cut(entry.record.query_tokens, self.query_tokens) for entry in part]

    def _document_texts(self, part: Sequence[_Chosen]) -> list[np.ndarray]:
        texts = [_NO_TOKENS] * (len(part) * self.columns)
        ids = np.zeros((len(texts), 2), np.int32)
        for row, (record, documents) in enumerate(part):
            for column, document in enumerate(documents, start=row * self.columns):
                ids[column] = record.document_ids[document]
                texts[column] = self._cut(record.document_tokens[document], self.document_tokens)
        return [text if first else _NO_TOKENS for text, first in zip(texts, _first_copies(ids), strict=True)]

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
