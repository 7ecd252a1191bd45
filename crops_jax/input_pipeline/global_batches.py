"""Turns records into global batches, in an order that is a pure function of (seed, step).

The queries of a run form one endless sequence: epoch follows epoch, and every epoch is a permutation of all records.
Step s with batch size B takes positions s*B to s*B + B - 1. So no record is left out, a batch can cross the end of an
epoch (or, with few records, hold a query more than once), and the step is the whole state of the pipeline. Neither the
number of processes nor the number of worker processes changes what a step holds.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence

import grain
import jax
import numpy as np
from jaxtyping import Int64

from crops_jax.config import Config
from crops_jax.hashing import seed_hash
from crops_jax.input_pipeline.batch_reader import Batch, BatchReader
from crops_jax.input_pipeline.drawn_negatives import DrawnNegatives
from crops_jax.records import RecordSource

_READ_AHEAD_BATCHES = 2
# The texts of this many batches, but at most of this many records, are measured to choose the numbers of rows.
_MEASURED_BATCHES = 16
_MEASURED_RECORDS = 20_000
_DESCRIBED_RECORDS = 5


def batches(
    source: RecordSource,
    config: Config,
    *,
    start_step: int = 0,
    num_steps: int,
    end_step: int | None = None,
    groups: int = 1,
    own_groups: Sequence[int] | None = None,
    documents: RecordSource | None = None,
    drawn: DrawnNegatives | None = None,
) -> Iterator[Batch]:
    """Yields the batches of steps start_step to num_steps - 1 of a run.

    `batches(..., start_step=k, num_steps=n)` is `batches(..., num_steps=n)` without its first k batches; a resumed run
    continues with it. A thread, or config.data.workers processes, read batches ahead.

    Args:
      source: the records of the split train.
      config: its data (batch, columns, shuffling, workers), encoder (token limits) and training.seed are used.
      start_step: the first step to yield.
      num_steps: the number of steps of the whole run.
      end_step: the step before which the batches end; None: num_steps.
      groups: the number of groups of a global batch, which all have the same number of queries; a mesh has
        crops_jax.devices.sharding.num_groups of them. Texts are packed within their group.
      own_groups: the groups of every global batch that this process receives
        (crops_jax.devices.sharding.own_groups); None: all groups.
      documents: the split of all documents, for a run some of whose steps have drawn negatives.
      drawn: the drawn negatives of these steps; None: their documents are those of the records.

    Raises:
      InputError: a record is damaged. This can happen while iterating too.
      ValueError: `groups` does not divide the batch, or `own_groups` has a group that does not exist.
    """
    if not 0 <= start_step <= num_steps:
        raise ValueError(f"start_step must lie in [0, num_steps] = [0, {num_steps}], found {start_step}")
    size = config.data.queries_per_batch
    own = range(groups) if own_groups is None else own_groups
    if size % groups or not all(0 <= group < groups for group in own):
        raise ValueError(
            f"a batch of {size} queries has no {groups} equal groups with {list(own)} among them; "
            "data.queries_per_batch must be a multiple of the groups"
        )
    order = _order(source, config, num_steps=num_steps)
    reader = BatchReader.create(source, config, groups=groups, own_groups=tuple(own))
    measured = min(num_steps, _MEASURED_BATCHES, max(1, _MEASURED_RECORDS // size))
    samples = [np.asarray(order[i]) for i in range(measured)]
    needed = [] if config.negatives.last_refresh(0) is not None else reader.rows_needed(samples)
    if documents is not None:
        # All parts of a run have the same numbers of rows, whatever is drawn, so that no step is compiled again.
        columns = config.data.documents_per_query - config.data.positives_per_query
        random = DrawnNegatives.at_random(
            documents, first_position=0, positions=measured * size, columns=columns, seed=config.training.seed
        )
        needed = needed + dataclasses.replace(reader, drawn=random).rows_needed(samples)
    multiple = config.training.micro_batches
    reader = reader.with_row_counts(needed, queries=size, steps=num_steps, multiple=multiple)
    last = num_steps if end_step is None else end_step
    return _read(order[start_step:last], dataclasses.replace(reader, drawn=drawn), config)


def queries_of_steps(
    source: RecordSource, config: Config, *, first_step: int, last_step: int
) -> Int64[np.ndarray, "queries 2"]:
    """Returns the position in the run and the number in `source` of each query of steps first_step to last_step - 1."""
    order = _order(source, config, num_steps=last_step)
    return np.concatenate([np.asarray(order[step]) for step in range(first_step, last_step)])


def records_of_step(source: RecordSource, config: Config, step: int) -> Int64[np.ndarray, "B"]:
    """Returns the numbers in `source` of the records of a step's batch. Steps count from 0, as in `batches`."""
    return np.asarray(_order(source, config, num_steps=step + 1)[step])[:, 1]


def describe_batch(source: RecordSource, config: Config, step: int) -> str:
    """Describes a step's batch for messages: its number of records, and shard and number of the first few."""
    numbers = records_of_step(source, config, step)
    first = [source.locate(int(number)) for number in numbers[:_DESCRIBED_RECORDS]]
    named = ", ".join(f"{file.name} record {record}" for file, record in first)
    more = len(numbers) - len(first)
    return f"its batch holds {len(numbers)} records of {source.path}: {named}" + (f" and {more} more" if more else "")


def _order(source: RecordSource, config: Config, *, num_steps: int) -> grain.MapDataset:
    """Returns, for each step, the global position and the number of the record of every query of its batch."""
    order = grain.MapDataset.range(len(source))
    if config.data.shuffle:
        order = order.shuffle(seed=_shuffle_seed(config.training.seed))
    size = config.data.queries_per_batch
    epochs = max(1, math.ceil(num_steps * size / len(source)))
    return order.repeat(epochs).map_with_index(_with_position).batch(size)


def _read(part: grain.MapDataset, reader: BatchReader, config: Config) -> Iterator[Batch]:
    workers = config.data.workers
    threads, ahead = (0, 0) if workers else (1, _READ_AHEAD_BATCHES)
    dataset = part.map(reader).to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead))
    if workers:
        _mark_flags_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    with contextlib.closing(iter(dataset)) as iterator:
        for batch in iterator:
            # Workers pass arrays in shared memory, which is scarce and must be released before the process ends.
            yield jax.tree.map(np.array, batch) if workers else batch


def _mark_flags_as_parsed() -> None:
    """Marks the flags of absl as parsed. Grain passes them to worker processes and refuses to read them unparsed."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _with_position(position: int, record: int) -> Int64[np.ndarray, "2"]:
    return np.array([position, record], np.int64)


def _shuffle_seed(seed: int) -> int:
    """Returns the seed for grain, which shuffles epoch e with seed + e: successive seeds must not share epochs."""
    return int(seed_hash(seed) >> np.uint64(32))
