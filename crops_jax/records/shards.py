"""Training records in sharded, indexed TFRecord files.

A folder of records opens with TensorFlow as well (`tfds.builder_from_directory(path).as_dataset()`), and is written
and read here with neither TensorFlow nor tensorflow_datasets.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from crops_jax.artifacts.atomic import replaced_file
from crops_jax.errors import InputError
from crops_jax.records import tfrecord
from crops_jax.records.dataset_info import (
    DATASET,
    DATASET_INFO,
    SplitInfo,
    read_dataset_info,
    shard_names,
    write_dataset_info,
)
from crops_jax.records.query_record import QueryRecord, decode_record, encode_record, feature_values, serialise

__all__ = [
    "EncodedRecords",
    "QueryRecord",
    "RecordSource",
    "add_split",
    "decode_record",
    "encode_record",
    "encode_records",
    "shard_bounds",
    "splits",
    "write_records",
    "write_shard",
]


class EncodedRecords(NamedTuple):
    """Consecutive records in the form in which a shard holds them, as one process hands them to another.

    frames: the bytes of a TFRecord file. sizes: how many of them each record takes.
    """

    frames: bytes
    sizes: Int64[np.ndarray, "records"]
    info: SplitInfo


def write_records(
    path: Path | str, examples: Iterable[QueryRecord], *, num_shards: int, split: str = "train"
) -> dict[str, int]:
    """Writes one split of a folder of records; the same examples always give the same bytes.

    Shards hold consecutive examples, so that `RecordSource(path)[i]` is the i-th of `examples`, which may be a
    generator: nothing of it is kept in memory. There are never more shards than examples. Another split may be added
    to the folder afterwards.

    Args:
      path: the folder, made when it is not there.
      examples: at least one.
      num_shards: files, named crops-SPLIT.tfrecord-00000-of-00004, each with an index beside it.

    Returns:
      The number of `records`, `shards` and `bytes` written.

    Raises:
      InputError: no examples, a split that is there already, or a field that is not what QueryRecord says.
    """
    path = Path(path)
    if num_shards < 1:
        raise InputError(f"num_shards must be at least 1, found {num_shards}")
    path.mkdir(parents=True, exist_ok=True)
    _other_splits(path, split)
    with tempfile.TemporaryDirectory(prefix=f".{split}-", dir=path) as temporary:
        info = SplitInfo()
        spool = Path(temporary) / "records"
        offsets = _spool(spool, examples, info)
        records = len(offsets) - 1
        if not records:
            raise InputError(f"{path}: there are no examples for split {split}; nothing is written")
        bounds = shard_bounds(records, num_shards)
        for name, first, last in zip(shard_names(split, len(bounds) - 1), bounds, bounds[1:]):
            _cut(spool, offsets[first : last + 1], Path(temporary) / name)
        for file in sorted(Path(temporary).glob(f"{DATASET}-*")):
            os.replace(file, path / file.name)
    info.shard_lengths = np.diff(bounds).tolist()
    add_split(path, [info], split=split)
    return {"records": records, "shards": len(bounds) - 1, "bytes": int(offsets[-1])}


def shard_bounds(records: int, num_shards: int) -> list[int]:
    """Shard i of a split holds its records bounds[i] to bounds[i + 1] - 1; never more shards than records."""
    shards = min(num_shards, records)
    return [shard * records // shards for shard in range(shards + 1)]


def encode_records(examples: Iterable[QueryRecord], *, first: int = 0) -> EncodedRecords:
    """Some examples in the form in which a shard holds them.

    Raises InputError naming the example, counted from `first`, and its field that is not what QueryRecord says.
    """
    info, frames = SplitInfo(), []
    for number, example in enumerate(examples, first):
        frames.append(tfrecord.frame(_serialised(number, example, info)))
    return EncodedRecords(b"".join(frames), np.array(list(map(len, frames)), np.int64), info)


def write_shard(file: Path, parts: Iterable[EncodedRecords]) -> SplitInfo:
    """Writes one shard and then its index, each whole; `file` is named as `dataset_info.shard_names` says.

    Returns what `add_split` has to know of it.
    """
    info, sizes = SplitInfo(), [np.zeros(0, np.int64)]
    with replaced_file(file) as temporary, open(temporary, "wb") as opened:
        for part in parts:
            opened.write(part.frames)
            sizes.append(part.sizes)
            info.merge(part.info)
    ends = np.cumsum(np.concatenate(sizes))
    tfrecord.write_index(file, np.concatenate([[0], ends]))
    info.shard_lengths = [len(ends)]
    return info


def add_split(path: Path, infos: Iterable[SplitInfo], *, split: str) -> None:
    """Enters a split whose shards lie in `path` into its dataset_info.json; `infos` in the order of the shards.

    Raises InputError for a name that is no identifier and a split that is there already.
    """
    whole = SplitInfo()
    for info in infos:
        whole.merge(info)
    write_dataset_info(path, {**_other_splits(path, split), split: whole})


def splits(path: Path | str) -> dict[str, int]:
    """The splits of a folder of records and how many records each holds."""
    return {name: sum(info.shard_lengths) for name, info in read_dataset_info(Path(path)).items()}


class RecordSource:
    """One split of a folder of records: a grain random-access source of `QueryRecord`.

    Opening checks that every shard is there and holds its number of records; every read checks both checksums. Can
    be pickled, so that worker processes read it too.

    Attributes:
      path, split: what was opened.
      labelled_per_query: the greatest number of labelled ids that a record of any split here holds.
      closing_token: the token that ends every text of this split (such as [SEP]), or None.

    Raises:
      InputError: naming the file, and the record in it, that is missing, cut off or damaged.
    """

    def __init__(self, path: Path | str, *, split: str = "train"):
        self.path, self.split = Path(path), split
        infos = read_dataset_info(self.path)
        if split not in infos:
            raise InputError(f"{self.path}: there is no split {split}, only {', '.join(sorted(infos))}")
        self.labelled_per_query: int = max(info.greatest["labelled"] for info in infos.values())
        self.closing_token: int | None = infos[split].closing_token
        lengths = infos[split].shard_lengths
        names = shard_names(split, len(lengths))
        self._files = tfrecord.TFRecordFiles([self.path / name for name in names], counts=lengths)
        if self._files.data_bytes != infos[split].data_bytes:
            raise InputError(
                f"{self.path}: the shards of split {split} hold {self._files.data_bytes} bytes of records, not the "
                f"{infos[split].data_bytes} that {DATASET_INFO} says, so one of them is another's; write the records "
                "again"
            )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> QueryRecord:
        data = self._files[index]
        try:
            return decode_record(data)
        except InputError as error:
            file, record = self._files.locate(index)
            raise InputError(f"{file}: record {record}: {error}; write the records again") from error

    def locate(self, index: int) -> tuple[Path, int]:
        """The shard that holds a record, and the number of the record in it, from 0."""
        return self._files.locate(index)

    def __iter__(self) -> Iterator[QueryRecord]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"RecordSource({str(self.path)!r}, split={self.split!r})"


def _other_splits(path: Path, split: str) -> dict[str, SplitInfo]:
    if not split.isidentifier():
        raise InputError(f"a split is named with letters, digits and underscores, found {split!r}")
    infos = read_dataset_info(path) if (path / DATASET_INFO).exists() else {}
    if split in infos:
        raise InputError(f"{path}: split {split} is there already; write to another folder")
    return infos


def _spool(file: Path, examples: Iterable[QueryRecord], info: SplitInfo) -> Int64[np.ndarray, "records+1"]:
    """Writes all examples to one file, since their number is known only afterwards; returns their offsets."""
    offsets = [0]
    with open(file, "wb") as opened:
        for number, example in enumerate(examples):
            data = _serialised(number, example, info)
            offsets.append(offsets[-1] + opened.write(tfrecord.frame(data)))
    return np.array(offsets, np.int64)


def _serialised(number: int, example: QueryRecord, info: SplitInfo) -> bytes:
    try:
        values = feature_values(QueryRecord(*example))
    except InputError as error:
        raise InputError(f"example {number}: {error}") from error
    data = serialise(values)
    info.add(values, data)
    return data


def _cut(spool: Path, offsets: np.ndarray, shard: Path) -> None:
    with open(spool, "rb") as source, open(shard, "wb") as target:
        source.seek(offsets[0])
        remaining = int(offsets[-1] - offsets[0])
        while remaining:
            remaining -= target.write(source.read(min(remaining, 1 << 24)))
    tfrecord.write_index(shard, offsets - offsets[0])
