"""The numbers of tokens of the texts of a split, by which a batch is laid out before its records are read.

Of several processes, each reads the records of its own groups of a batch, and yet all need the same number of rows. So
each shard has a second file beside it, NAME.texts, with the ids, levels and numbers of tokens of all texts but without
their tokens. It is a TFRecord file of two records:

1. int64: the size of the shard in bytes; the number of the first document of each record, and of all documents; the
   number of tokens of each query.
2. int32 [documents, 4]: the feature `documents` of all records (crops_jax.records.query_record).

If the file is missing, broken or older than its shard, the numbers are read from the records themselves.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from crops_jax.artifacts.atomic import replaced_file
from crops_jax.errors import InputError
from crops_jax.records.query_record import FEATURE_COLUMNS, QueryRecord, feature_values
from crops_jax.records.tfrecord import TFRecordFiles, frame

DOCUMENT_COLUMNS = FEATURE_COLUMNS["documents"]
"""The count of the numbers of a document: its id (two words), its level and its number of tokens."""


class RecordTexts(NamedTuple):
    """The texts of some records without their tokens.

    query_tokens: the number of tokens of each query.
    starts: documents starts[i] to starts[i + 1] - 1 are those of record i.
    documents: the id (two words), the level and the number of tokens of each document.
    """

    query_tokens: Int64[np.ndarray, "records"]
    starts: Int64[np.ndarray, "records+1"]
    documents: Int32[np.ndarray, "documents 4"]

    @staticmethod
    def of(values: Sequence[Mapping[str, np.ndarray]]) -> "RecordTexts":
        """Returns the texts of records, whose features `feature_values` returned."""
        documents = [features["documents"] for features in values]
        query_tokens = np.array([len(features["query_tokens"]) for features in values], np.int64)
        return RecordTexts(
            query_tokens, _starts(np.array([len(some) for some in documents], np.int64)), _stacked(documents)
        )

    @staticmethod
    def joined(parts: Iterable["RecordTexts"]) -> "RecordTexts":
        """Returns the texts of several parts, one after the other."""
        parts = list(parts)
        query_tokens = np.concatenate([np.zeros(0, np.int64), *(part.query_tokens for part in parts)])
        counts = np.concatenate([np.zeros(0, np.int64), *(np.diff(part.starts) for part in parts)])
        return RecordTexts(query_tokens, _starts(counts), _stacked([part.documents for part in parts]))

    def part(self, first: int, last: int) -> "RecordTexts":
        """Returns the texts of records `first` to `last` - 1."""
        starts = self.starts[first : last + 1]
        return RecordTexts(self.query_tokens[first:last], starts - starts[0], self.documents[starts[0] : starts[-1]])


def text_index_path(shard: Path | str) -> Path:
    """Returns the path of the text index of a shard."""
    return Path(f"{shard}.texts")


def write_text_index(shard: Path, texts: RecordTexts) -> None:
    """Writes the text index beside a shard, which is there already, whole or not at all."""
    numbers = np.concatenate([[os.path.getsize(shard)], texts.starts, texts.query_tokens])
    with replaced_file(text_index_path(shard)) as temporary, open(temporary, "wb") as opened:
        opened.write(frame(numbers.astype("<i8").tobytes()))
        opened.write(frame(texts.documents.astype("<i4").tobytes()))


class TextIndex:
    """The text indices of the shards of a split, which are read into memory when they are first needed.

    A document takes 16 bytes and a record as many. The object can be pickled without what it has read.

    Args:
      shards: the TFRecord files of the split, in order.
      counts: the number of records of each of them.
      read: reads the records with some numbers in the split, for shards without a text index.
      size: gives the size of a shard in bytes.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        counts: Sequence[int],
        read: Callable[[Sequence[int]], list[QueryRecord]],
        size: Callable[[Path], int] = os.path.getsize,
    ):
        self._shards, self._read, self._size = list(shards), read, size
        self._ends = np.cumsum(np.array(counts, np.int64)).tolist()
        self._all: RecordTexts | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_all": None}

    def texts(self, numbers: Int64[np.ndarray, "some"]) -> RecordTexts:
        """Returns the texts of the records with these numbers in the split, in this order."""
        if self._all is None:
            self._all = RecordTexts.joined(map(self._of_shard, range(len(self._shards))))
        query_tokens, starts, documents = self._all
        first = starts[numbers]
        chosen = _starts(starts[numbers + 1] - first)
        places = np.repeat(first - chosen[:-1], np.diff(chosen)) + np.arange(chosen[-1])
        return RecordTexts(query_tokens[numbers], chosen, documents[places])

    def _of_shard(self, shard: int) -> RecordTexts:
        first, last = self._ends[shard - 1] if shard else 0, self._ends[shard]
        path = self._shards[shard]
        found = _read_text_index(path, records=last - first, size=self._size(path))
        if found is None:
            found = RecordTexts.of(list(map(feature_values, self._read(range(first, last)))))
        return found


def _read_text_index(shard: Path, *, records: int, size: int) -> RecordTexts | None:
    """Returns the text index of a shard, or None when it has none that is intact and fits the shard."""
    try:
        files = TFRecordFiles([text_index_path(shard)], counts=[2])
        numbers, documents = np.frombuffer(files[0], "<i8"), np.frombuffer(files[1], "<i4")
    except (InputError, OSError, ValueError):
        return None
    if len(numbers) != 2 * records + 2 or numbers[0] != size:
        return None
    starts, query_tokens = numbers[1 : records + 2], numbers[records + 2 :]
    fits = starts[0] == 0 and (np.diff(starts) >= 0).all() and starts[-1] * DOCUMENT_COLUMNS == len(documents)
    return RecordTexts(query_tokens, starts, documents.reshape(-1, DOCUMENT_COLUMNS)) if fits else None


def _starts(counts: Int64[np.ndarray, "records"]) -> Int64[np.ndarray, "records+1"]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _stacked(documents: Sequence[np.ndarray]) -> Int32[np.ndarray, "documents 4"]:
    return np.concatenate([np.zeros((0, DOCUMENT_COLUMNS), np.int32), *documents])
