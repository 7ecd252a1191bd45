"""Training records in sharded, indexed TFRecord files.

TensorFlow can read a folder of records too (`tfds.builder_from_directory(path).as_dataset()`). This module writes and
reads it without TensorFlow and tensorflow_datasets.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from crops_jax.records.query_record import QueryRecord, decode_record, feature_values, serialise
from crops_jax.records.text_index import RecordTexts, TextIndex, write_text_index
from crops_jax.storage.remote.files import RemoteFiles

ALL_DOCUMENTS = "documents"
"""The name of the split that holds all documents: one record for each, with its document at level 0 and no query."""

_RANGES_AT_ONCE = 32
_READ_TOGETHER = 256
"""The number of successive records of a bucket that are read at once by a reader that takes one after the other."""


class EncodedRecords(NamedTuple):
    """Consecutive records in the form in which a shard holds them. One process can pass them to another.

    frames: the bytes of the records in a TFRecord file.
    sizes: the number of these bytes that each record takes.
    texts: the texts of these records without their tokens, for the text index.
    info: the counts of these records.
    """

    frames: bytes
    sizes: Int64[np.ndarray, "records"]
    texts: RecordTexts
    info: SplitInfo


def write_records(
    path: Path | str, examples: Iterable[QueryRecord], *, num_shards: int, split: str = "train"
) -> dict[str, int]:
    """Writes one split of a folder of records; the same examples always give the same bytes.

    Shards hold consecutive examples, so that `RecordSource(path)[i]` is the i-th of `examples`. `examples` can be a
    generator, because examples are not kept in memory. There are never more shards than examples. Another split can be
    added to the folder afterwards.

    Args:
      path: the folder; it is created when it does not exist.
      examples: the records, at least one.
      num_shards: the maximum number of files. They are named crops-SPLIT.tfrecord-00000-of-00004 and so on, each with
        its index beside it.
      split: the name of the split, a Python identifier.

    Returns:
      The numbers of `records`, `shards` and `bytes` written.

    Raises:
      InputError: there are no examples, the split exists already, or a field is not of the form that QueryRecord
        declares.
    """
    path = Path(path)
    if num_shards < 1:
        raise InputError(f"num_shards must be at least 1, found {num_shards}")
    path.mkdir(parents=True, exist_ok=True)
    _other_splits(path, split)
    with tempfile.TemporaryDirectory(prefix=f".{split}-", dir=path) as temporary:
        info = SplitInfo()
        spool = Path(temporary) / "records"
        offsets, texts = _spool(spool, examples, info)
        records = len(offsets) - 1
        if not records:
            raise InputError(f"{path}: there are no examples for split {split}; nothing is written")
        bounds = shard_bounds(records, num_shards)
        for name, first, last in zip(shard_names(split, len(bounds) - 1), bounds, bounds[1:]):
            _cut(spool, offsets[first : last + 1], texts.part(first, last), Path(temporary) / name)
        for file in sorted(Path(temporary).glob(f"{DATASET}-*")):
            os.replace(file, path / file.name)
    info.shard_lengths = np.diff(bounds).tolist()
    add_split(path, [info], split=split)
    return {"records": records, "shards": len(bounds) - 1, "bytes": int(offsets[-1])}


def shard_bounds(records: int, num_shards: int) -> list[int]:
    """Returns bounds such that shard i of a split holds records bounds[i] to bounds[i + 1] - 1.

    There are never more shards than records.
    """
    shards = min(num_shards, records)
    return [shard * records // shards for shard in range(shards + 1)]


def encode_records(examples: Iterable[QueryRecord], *, first: int = 0) -> EncodedRecords:
    """Returns examples in the form in which a shard holds them.

    Raises InputError when a field is not of the form that QueryRecord declares. The message names the field and the
    example's number, counted from `first`.
    """
    info, frames, features = SplitInfo(), [], []
    for number, example in enumerate(examples, first):
        values, data = _serialised(number, example, info)
        frames.append(tfrecord.frame(data))
        features.append(values)
    sizes = np.array(list(map(len, frames)), np.int64)
    return EncodedRecords(b"".join(frames), sizes, RecordTexts.of(features), info)


def write_shard(file: Path, parts: Iterable[EncodedRecords]) -> SplitInfo:
    """Writes one shard and its indices, each whole, and returns the counts of the shard, which `add_split` needs.

    Args:
      file: the path of the shard, whose name is one of `dataset_info.shard_names`.
      parts: the records of the shard, in order.
    """
    info, sizes, texts = SplitInfo(), [np.zeros(0, np.int64)], []
    with replaced_file(file) as temporary, open(temporary, "wb") as opened:
        for part in parts:
            opened.write(part.frames)
            sizes.append(part.sizes)
            texts.append(part.texts)
            info.merge(part.info)
    ends = np.cumsum(np.concatenate(sizes))
    tfrecord.write_index(file, np.concatenate([[0], ends]))
    write_text_index(file, RecordTexts.joined(texts))
    info.shard_lengths = [len(ends)]
    return info


def add_split(path: Path, infos: Iterable[SplitInfo], *, split: str) -> None:
    """Adds a split whose shards are in the folder `path` to its dataset_info.json.

    Args:
      infos: the counts of the shards, in the order of the shards.

    Raises InputError when the name is not an identifier, or when the split exists already.
    """
    total = SplitInfo()
    for info in infos:
        total.merge(info)
    write_dataset_info(path, {**_other_splits(path, split), split: total})


def splits(path: Path | str) -> dict[str, int]:
    """Returns the splits of a folder of records and the number of records of each."""
    return {name: sum(info.shard_lengths) for name, info in read_dataset_info(Path(path)).items()}


class RecordSource:
    """One split of a folder of records: a grain random-access source of `QueryRecord`.

    Opening it checks that every shard exists and holds its number of records. Every read checks both checksums. It can
    be pickled, so that worker processes can read it too. The shards that a local copy of records in a bucket leaves out
    (crops_jax.storage.remote.files) are read by ranges; the records and their order are the same.

    Attributes:
      path, split: the folder and the split that were opened.
      labelled_per_query: the maximum number of labelled ids of a record in any split of the folder.
      closing_token: the token that ends every text of this split (such as [SEP]), or None.
      scored: whether the records have the scores of the relevance discriminator (QueryRecord.labelled_scores).
      text_index: the numbers of tokens of all texts, which can be read without the records.

    Raises:
      InputError: a file is missing, cut off or damaged. The message names the file, and the record in it.
      NamedFailure: a shard in a bucket is no longer the one that was there at the start, or the server is down.
    """

    def __init__(self, path: Path | str, *, split: str = "train"):
        self.path, self.split = Path(path), split
        infos = read_dataset_info(self.path)
        if split not in infos:
            raise InputError(f"{self.path}: there is no split {split}, only {', '.join(sorted(infos))}")
        self.labelled_per_query: int = max(info.greatest["labelled"] for info in infos.values())
        self.closing_token: int | None = infos[split].closing_token
        self.scored: bool = infos[split].scored
        lengths = infos[split].shard_lengths
        names = shard_names(split, len(lengths))
        paths = [self.path / name for name in names]
        self._remote = RemoteFiles.of(self.path)
        if self._remote is None:
            self._files = tfrecord.TFRecordFiles(paths, counts=lengths)
            self.text_index = TextIndex(paths, lengths, self.read)
        else:
            self._files = tfrecord.RemoteTFRecordFiles(paths, counts=lengths, remote=self._remote)
            self.text_index = TextIndex(paths, lengths, self.read, self._remote.size_of)
        if self._files.data_bytes != infos[split].data_bytes:
            raise InputError(
                f"{self.path}: the shards of split {split} hold {self._files.data_bytes} bytes of records, not the "
                f"{infos[split].data_bytes} that {DATASET_INFO} says, so one of them belongs to other records; "
                "write the records again"
            )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> QueryRecord:
        return self._decoded(index, self._files[index])

    def read(self, numbers: Sequence[int], *, threads: int = 0) -> list[QueryRecord]:
        """Returns the records with these numbers, in this order.

        Args:
          numbers: the numbers of the records.
          threads: the number of records, or of ranges of shards in a bucket, that are read at once. 0: one record, or
            32 ranges.
        """
        if isinstance(self._files, tfrecord.RemoteTFRecordFiles):
            found = self._files.read(numbers, threads=threads or _RANGES_AT_ONCE)
            return [self._decoded(number, data) for number, data in zip(numbers, found, strict=True)]
        if threads <= 1:
            return [self[number] for number in numbers]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self.__getitem__, numbers))

    def locate(self, index: int) -> tuple[Path, int]:
        """Returns the shard that holds a record, and the number of the record in it, from 0."""
        return self._files.locate(index)

    def __iter__(self) -> Iterator[QueryRecord]:
        step = 1 if self._remote is None else _READ_TOGETHER
        for first in range(0, len(self), step):
            yield from self.read(range(first, min(first + step, len(self))))

    def __repr__(self) -> str:
        return f"RecordSource({str(self.path)!r}, split={self.split!r})"

    def _decoded(self, index: int, data: bytes) -> QueryRecord:
        try:
            return decode_record(data)
        except InputError as error:
            file, record = self._files.locate(index)
            raise InputError(f"{file}: record {record}: {error}; write the records again") from error


def _other_splits(path: Path, split: str) -> dict[str, SplitInfo]:
    """Returns the present splits of a folder. Raises InputError when `split` is one of them or is not an identifier."""
    if not split.isidentifier():
        raise InputError(f"a split is named with letters, digits and underscores, found {split!r}")
    infos = read_dataset_info(path) if (path / DATASET_INFO).exists() else {}
    if split in infos:
        raise InputError(f"{path}: split {split} exists already; write to another folder")
    return infos


def _spool(
    file: Path, examples: Iterable[QueryRecord], info: SplitInfo
) -> tuple[Int64[np.ndarray, "records+1"], RecordTexts]:
    """Writes all examples to one file, because their number is only known afterwards; returns offsets and texts."""
    offsets, features = [0], []
    with open(file, "wb") as opened:
        for number, example in enumerate(examples):
            values, data = _serialised(number, example, info)
            offsets.append(offsets[-1] + opened.write(tfrecord.frame(data)))
            features.append({name: values[name] for name in ("query_tokens", "documents")})
    return np.array(offsets, np.int64), RecordTexts.of(features)


def _serialised(number: int, example: QueryRecord, info: SplitInfo) -> tuple[dict[str, np.ndarray], bytes]:
    try:
        values = feature_values(QueryRecord(*example))
        data = serialise(values)
        info.add(values, data)
    except InputError as error:
        raise InputError(f"example {number}: {error}") from error
    return values, data


def _cut(spool: Path, offsets: np.ndarray, texts: RecordTexts, shard: Path) -> None:
    """Copies the records between the first and the last offset to a shard, and writes its indices."""
    with open(spool, "rb") as source, open(shard, "wb") as target:
        source.seek(offsets[0])
        remaining = int(offsets[-1] - offsets[0])
        while remaining:
            remaining -= target.write(source.read(min(remaining, 1 << 24)))
    tfrecord.write_index(shard, offsets - offsets[0])
    write_text_index(shard, texts)
