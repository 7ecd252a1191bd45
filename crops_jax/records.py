"""Training records in sharded, indexed TFRecord files.

A folder of records opens with TensorFlow as well (`tfds.builder_from_directory(path).as_dataset()`), and is written
and read here with neither TensorFlow nor tensorflow_datasets.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from crops_jax import tfrecord
from crops_jax.dataset_info import (
    DATASET,
    DATASET_INFO,
    SplitInfo,
    read_dataset_info,
    shard_names,
    write_dataset_info,
)
from crops_jax.errors import InputError
from crops_jax.query_record import QueryRecord, decode_record, encode_record, feature_values, serialise

__all__ = ["QueryRecord", "RecordSource", "decode_record", "encode_record", "splits", "write_records"]


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
    if not split.isidentifier():
        raise InputError(f"a split is named with letters, digits and underscores, found {split!r}")
    path.mkdir(parents=True, exist_ok=True)
    infos = read_dataset_info(path) if (path / DATASET_INFO).exists() else {}
    if split in infos:
        raise InputError(f"{path}: split {split} is there already; write to another folder")
    with tempfile.TemporaryDirectory(prefix=f".{split}-", dir=path) as temporary:
        info = SplitInfo()
        spool = Path(temporary) / "records"
        offsets = _spool(spool, examples, info)
        records = len(offsets) - 1
        if not records:
            raise InputError(f"{path}: there are no examples for split {split}; nothing is written")
        shards = min(num_shards, records)
        bounds = [shard * records // shards for shard in range(shards + 1)]
        for name, first, last in zip(shard_names(split, shards), bounds, bounds[1:]):
            _cut(spool, offsets[first : last + 1], Path(temporary) / name)
        for file in sorted(Path(temporary).glob(f"{DATASET}-*")):
            os.replace(file, path / file.name)
    info.shard_lengths = np.diff(bounds).tolist()
    write_dataset_info(path, {**infos, split: info})
    return {"records": records, "shards": shards, "bytes": int(offsets[-1])}


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

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> QueryRecord:
        data = self._files[index]
        try:
            return decode_record(data)
        except InputError as error:
            file, record = self._files.locate(index)
            raise InputError(f"{file}: record {record}: {error}; write the records again") from error

    def __iter__(self) -> Iterator[QueryRecord]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"RecordSource({str(self.path)!r}, split={self.split!r})"


def _spool(file: Path, examples: Iterable[QueryRecord], info: SplitInfo) -> Int64[np.ndarray, "records+1"]:
    """Writes all examples to one file, since their number is known only afterwards; returns their offsets."""
    offsets = [0]
    with open(file, "wb") as opened:
        for number, example in enumerate(examples):
            try:
                values = feature_values(QueryRecord(*example))
            except InputError as error:
                raise InputError(f"example {number}: {error}") from error
            data = serialise(values)
            info.add(values, data)
            offsets.append(offsets[-1] + opened.write(tfrecord.frame(data)))
    return np.array(offsets, np.int64)


def _cut(spool: Path, offsets: np.ndarray, shard: Path) -> None:
    with open(spool, "rb") as source, open(shard, "wb") as target:
        source.seek(offsets[0])
        remaining = int(offsets[-1] - offsets[0])
        while remaining:
            remaining -= target.write(source.read(min(remaining, 1 << 24)))
    tfrecord.write_index(shard, offsets - offsets[0])
