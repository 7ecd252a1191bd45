"""Records to global batches, in an order that is a pure function of (seed, step).

The queries of a run stand in one endless sequence: every epoch is a permutation of all records, epoch after epoch, and
step s of batch size B takes positions s*B to s*B + B - 1. So no record is left out, a batch may reach over the end of
an epoch (or, with few records, hold a query more than once), and the whole state of the pipeline is the step. Neither
the number of processes nor that of worker processes changes what a step holds.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Int32, Int64, UInt64

from crops_jax.config import Config
from crops_jax.query_record import QueryRecord
from crops_jax.records import RecordSource

PADDING_TOKEN = -1
"""Fills the rest of a row of tokens, whatever padding the tokenizer has."""

_READ_AHEAD_BATCHES = 2
_GREATEST_CHANCE = np.uint64(2**64 - 1)


class Batch(NamedTuple):
    """One process's part of a global batch of B queries with D document columns each; N = B * D.

    Columns i*D to i*D + D - 1 hold documents of query i. A column that its record does not fill has id (0, 0) and no
    tokens. L is the greatest number of labelled documents of a query in the records, so shapes never change.
    """

    query_tokens: Int32[np.ndarray, "B Tq"]
    document_tokens: Int32[np.ndarray, "N Td"]
    document_ids: Int32[np.ndarray, "N 2"]
    labelled_ids: Int32[np.ndarray, "B L 2"]
    labelled_levels: Int32[np.ndarray, "B L"]


def batches(
    source: RecordSource,
    config: Config,
    *,
    start_step: int = 0,
    num_steps: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """The batches of steps start_step to num_steps - 1 of a run.

    `batches(..., start_step=k, num_steps=n)` is `batches(..., num_steps=n)` without its first k: that is how a run is
    resumed. Batches are read ahead by a thread, or by config.data.workers processes.

    Args:
      source: records of the split train.
      config: data (batch, columns, shuffling, workers), encoder (token limits) and training.seed are used.
      start_step: the first step to be given.
      num_steps: steps of the whole run.
      process_index, process_count: this process gets its contiguous part of the queries of every global batch, with
        their documents.

    Raises:
      InputError: while iterating, for a damaged record.
      ValueError: processes that do not divide the batch.
    """
    if not 0 <= start_step <= num_steps:
        raise ValueError(f"start_step must lie in [0, num_steps] = [0, {num_steps}], found {start_step}")
    order = grain.MapDataset.range(len(source))
    if config.data.shuffle:
        order = order.shuffle(seed=_shuffle_seed(config.training.seed))
    epochs = math.ceil(num_steps * config.data.queries_per_batch / len(source))
    order = order.repeat(max(1, epochs)).map_with_index(_with_position)
    part = _part_of_batches(order, config, process_index, process_count)
    return _read(part[start_step:num_steps], _Reader.create(source, config), config)


def put_tokens(row: Int32[np.ndarray, "T"], tokens: Int32[np.ndarray, "tokens"], *, closing_token: int | None) -> None:
    """Writes a text into a row of padding.

    One that is too long keeps the token that closes every text (RecordSource.closing_token, such as [SEP]), as the
    tokenizer would cut it.
    """
    if len(tokens) <= len(row):
        row[: len(tokens)] = tokens
        return
    row[:] = tokens[: len(row)]
    if closing_token is not None:
        row[-1] = closing_token


def _part_of_batches(
    order: grain.MapDataset, config: Config, process_index: int, process_count: int
) -> grain.MapDataset:
    size, rest = divmod(config.data.queries_per_batch, process_count)
    if rest or not 0 <= process_index < process_count:
        raise ValueError(
            f"process {process_index} of {process_count} cannot take its part of "
            f"{config.data.queries_per_batch} queries; data.queries_per_batch must be a multiple of the processes"
        )
    return order.batch(size)[process_index::process_count]


def _read(part: grain.MapDataset, reader: "_Reader", config: Config) -> Iterator[Batch]:
    workers = config.data.workers
    threads, ahead = (0, 0) if workers else (1, _READ_AHEAD_BATCHES)
    dataset = part.map(reader).to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead))
    if workers:
        _mark_flags_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    with contextlib.closing(iter(dataset)) as iterator:
        for batch in iterator:
            # Workers hand over shared memory, which is scarce and must be gone before the process ends.
            yield Batch(*map(np.array, batch)) if workers else batch


def _mark_flags_as_parsed() -> None:
    """Worker processes get the flags of absl, which grain refuses to read before somebody parsed them."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _with_position(position: int, record: int) -> Int64[np.ndarray, "2"]:
    return np.array([position, record], np.int64)


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """Reads the records of one batch and lays them out."""

    source: RecordSource
    seed: int
    columns: int
    query_width: int
    document_width: int

    @classmethod
    def create(cls, source: RecordSource, config: Config) -> "_Reader":
        return cls(
            source=source,
            seed=config.training.seed,
            columns=config.data.documents_per_query,
            query_width=config.encoder.max_query_tokens,
            document_width=config.encoder.max_document_tokens,
        )

    def __call__(self, places: Int64[np.ndarray, "B 2"]) -> Batch:
        """places: global position and number of the record of every query."""
        records = [self.source[number] for number in places[:, 1].tolist()]
        chosen = choose_documents(
            [record.document_levels for record in records],
            positions=places[:, 0],
            seed=self.seed,
            columns=self.columns,
        )
        batch = self._empty_batch(len(records))
        for row, (record, documents) in enumerate(zip(records, chosen)):
            self._fill(batch, row, record, documents)
        return batch

    def _empty_batch(self, queries: int) -> Batch:
        documents, labelled = queries * self.columns, self.source.labelled_per_query
        return Batch(
            query_tokens=np.full((queries, self.query_width), PADDING_TOKEN, np.int32),
            document_tokens=np.full((documents, self.document_width), PADDING_TOKEN, np.int32),
            document_ids=np.zeros((documents, 2), np.int32),
            labelled_ids=np.zeros((queries, labelled, 2), np.int32),
            labelled_levels=np.zeros((queries, labelled), np.int32),
        )

    def _fill(self, batch: Batch, row: int, record: QueryRecord, documents: list[int]) -> None:
        closing = self.source.closing_token
        put_tokens(batch.query_tokens[row], record.query_tokens, closing_token=closing)
        first = row * self.columns
        batch.document_ids[first : first + len(documents)] = record.document_ids[documents]
        for column, document in enumerate(documents, start=first):
            put_tokens(batch.document_tokens[column], record.document_tokens[document], closing_token=closing)
        labelled = len(record.labelled_levels)
        batch.labelled_ids[row, :labelled] = record.labelled_ids
        batch.labelled_levels[row, :labelled] = record.labelled_levels


def choose_documents(
    levels: Sequence[Int32[np.ndarray, "documents"]],
    *,
    positions: Int64[np.ndarray, "queries"],
    seed: int,
    columns: int,
) -> list[list[int]]:
    """Which documents of each record enter a batch: numbers within the record, at most `columns` of them.

    A record with more documents gives one of its highest level first, so that a query never goes without a positive
    it has, and then any others; all by chance, decided by (seed, position), so that every epoch takes others.
    """
    counts = np.array([len(one) for one in levels], np.int64)
    if not counts.size or counts.max() <= columns:
        return [list(range(count)) for count in counts.tolist()]
    padded = np.full((len(levels), counts.max()), -1, np.int32)
    for row, one in enumerate(levels):
        padded[row, : len(one)] = one
    chances = _chances(seed, positions, padded.shape[1])
    highest = padded == padded.max(axis=1, keepdims=True)
    first = np.where(highest, chances, _GREATEST_CHANCE).argmin(axis=1)
    # Drawn anew: the highest ones that were not first have higher chances than the others.
    others = np.where(padded < 0, _GREATEST_CHANCE, _splitmix64(chances))
    others[np.arange(len(levels)), first] = 0
    order = others.argsort(axis=1, kind="stable")[:, :columns].tolist()
    return [list(range(count)) if count <= columns else row for row, count in zip(order, counts.tolist())]


def _chances(seed: int, positions: Int64[np.ndarray, "queries"], width: int) -> UInt64[np.ndarray, "queries width"]:
    """SplitMix64 (Steele, Lea, Flood 2014) of seed, position and column: the same on every platform and version."""
    key = _splitmix64(np.array(seed % (1 << 64), np.uint64))
    rows = _splitmix64(positions.astype(np.uint64) ^ key)
    return _splitmix64(rows[:, None] ^ _splitmix64(np.arange(width, dtype=np.uint64))[None, :])


def _splitmix64(values: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _shuffle_seed(seed: int) -> int:
    """grain shuffles epoch e with seed + e: neighbouring seeds must not give one another's epochs."""
    return int(_splitmix64(np.array(seed % (1 << 64), np.uint64)) >> np.uint64(32))
