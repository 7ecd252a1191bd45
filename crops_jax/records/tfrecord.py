"""Reads and writes TFRecord files without TensorFlow, with random access and checksums on every read.

A file is a sequence of records, each framed as

    uint64 length | uint32 masked CRC32C of length | data | uint32 masked CRC32C of data       (little-endian)

A file has an index beside it, NAME.index. The index is itself a TFRecord file, whose one record holds the byte offset
of every record and the size of the file as int64, so it has a checksum too. If the index is missing, broken or older
than its file, the offsets are read from the frames of the file.
"""

import functools
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from jaxtyping import Int64

from crops_jax.artifacts.atomic import replaced_file
from crops_jax.errors import InputError
from crops_jax.storage.remote.files import RemoteFiles

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
FRAME_BYTES = _HEADER.size + _CHECKSUM.size
_REMEDY = "restore the file or write the records again"


def masked_crc32c(data: bytes) -> int:
    """Returns the CRC32C of `data`, rotated right by 15 bits and plus a constant, as TFRecord files store it."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """Returns the bytes of one record with its length and checksums."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _CHECKSUM.pack(masked_crc32c(length)), data, _CHECKSUM.pack(masked_crc32c(data))))


def index_path(path: Path | str) -> Path:
    """Returns the path of the index of a TFRecord file."""
    return Path(f"{path}.index")


def write_index(path: Path, offsets: Int64[np.ndarray, "records+1"]) -> None:
    """Writes the index beside `path`, whole or not at all; offsets[-1] is the size of the file."""
    with replaced_file(index_path(path)) as temporary:
        temporary.write_bytes(frame(offsets.astype("<i8").tobytes()))


def read_index(path: Path, *, size: int | None = None) -> Int64[np.ndarray, "records+1"] | None:
    """Returns the offsets in the index of `path`, or None when it has no index that is intact and fits its size.

    Args:
      path: the TFRecord file.
      size: its size in bytes; None: that of the file on this machine.
    """
    try:
        content = index_path(path).read_bytes()
        if len(content) < FRAME_BYTES or content != frame(content[_HEADER.size : -_CHECKSUM.size]):
            return None
    except OSError:
        return None
    data = content[_HEADER.size : -_CHECKSUM.size]
    if len(data) % 8 or not data:
        return None
    offsets = np.frombuffer(data, "<i8").astype(np.int64)
    size = os.path.getsize(path) if size is None else size
    fits = offsets[0] == 0 and offsets[-1] == size and (np.diff(offsets) >= FRAME_BYTES).all()
    return offsets if fits else None


def scan(path: Path) -> Int64[np.ndarray, "records+1"]:
    """Returns the offsets of the records of a file, from its frames and without reading the data.

    Raises InputError when the length of a record is damaged or a record is cut off; the message names the record.
    """
    size = os.path.getsize(path)
    offsets, offset = [0], 0
    with open(path, "rb") as file:
        while offset < size:
            length = _length(file.read(_HEADER.size), path=path, record=len(offsets) - 1)
            offset += length + FRAME_BYTES
            if offset > size:
                raise InputError(f"{path}: record {len(offsets) - 1} is cut off at byte {size}; {_REMEDY}")
            offsets.append(offset)
            file.seek(offset)
    return np.array(offsets, np.int64)


class TFRecordFiles:
    """Random access to the records of several files as one sequence, in the order of the files.

    It can be pickled; every process then opens the files itself. Several threads can read at once.

    Args:
      paths: the files, in order.
      counts: the number of records that each file must hold.
      open_files: the maximum number of files that each process holds open.

    Raises:
      InputError: a file is missing or damaged, or holds another number of records.
    """

    def __init__(self, paths: Iterable[Path], *, counts: Iterable[int], open_files: int = 128):
        self._open_files = open_files
        self._paths = [Path(path) for path in paths]
        self._counts = np.array(list(counts), np.int64)
        self._ends = np.cumsum(self._counts)
        self._offsets = [
            self._read_offsets(path, count=int(count), first=int(end - count))
            for path, count, end in zip(self._paths, self._counts, self._ends, strict=True)
        ]
        self._open = _opener(self._open_files)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def data_bytes(self) -> int:
        """The size in bytes of all records without their frames."""
        return int(sum(offsets[-1] - (len(offsets) - 1) * FRAME_BYTES for offsets in self._offsets))

    def locate(self, index: int) -> tuple[Path, int]:
        """Returns the file that holds record `index` and the number of the record in it, from 0."""
        file, record = self._locate(index)
        return self._paths[file], record

    def __getitem__(self, index: int) -> bytes:
        """Returns the data of a record after checking both checksums.

        Raises InputError when the record is cut off or damaged; the message names file and record.
        """
        file, record = self._locate(index)
        try:
            return self._read(file, record)
        except _StaleIndex:
            # The file was replaced and the old index fits its size, or a length is damaged, which `scan` reports.
            self._offsets[file] = scan(self._paths[file])
        try:
            return self._read(file, record)
        except (_StaleIndex, IndexError) as error:
            raise _damaged(self._paths[file], record) from error

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = _opener(self._open_files)

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        file = int(np.searchsorted(self._ends, index, side="right"))
        return file, int(index) - (int(self._ends[file - 1]) if file else 0)

    def _read(self, file: int, record: int) -> bytes:
        path, offsets = self._paths[file], self._offsets[file]
        start, end = int(offsets[record]), int(offsets[record + 1])
        opened = self._open(path)  # a reference keeps it open if another thread evicts it from the cache
        content = os.pread(opened.descriptor, end - start, start)
        if len(content) != end - start:
            raise InputError(f"{path}: record {record} is cut off at byte {start + len(content)}; {_REMEDY}")
        return _unframed(content, path=path, record=record)

    def _read_offsets(self, path: Path, *, count: int, first: int) -> Int64[np.ndarray, "records+1"]:
        """Returns the offsets of a file with `count` records, whose first one has the number `first` among all."""
        if not path.is_file():
            raise InputError(f"{path}: no such file, it should hold records {first} to {first + count - 1}; {_REMEDY}")
        offsets = read_index(path)
        if offsets is None or len(offsets) - 1 != count:
            offsets = scan(path)
        if (records := len(offsets) - 1) != count:
            raise InputError(
                f"{path}: {records} records found, {count} expected, so record {min(records, count)} is the first in "
                f"doubt; {_REMEDY}"
            )
        return offsets


class RemoteTFRecordFiles(TFRecordFiles):
    """Random access to TFRecord files of which only the indices are on this machine; see TFRecordFiles.

    Args:
      paths: the files, in order, as if they were beside their indices.
      counts: the number of records that each file must hold.
      remote: reads the files by their names.

    Raises:
      InputError: an index is missing or damaged, or is that of another file.
    """

    def __init__(self, paths: Iterable[Path], *, counts: Iterable[int], remote: RemoteFiles):
        self._remote = remote
        super().__init__(paths, counts=counts)

    def __getitem__(self, index: int) -> bytes:
        """Returns the data of a record; see `read` for errors."""
        return self.read([index], threads=1)[0]

    def read(self, numbers: Sequence[int], *, threads: int) -> list[bytes]:
        """Returns the data of records after checking both checksums, in the order of their numbers.

        Raises InputError when a record is damaged, and NamedFailure when a file is no longer the one that was listed.

        Args:
          numbers: the numbers of the records.
          threads: the maximum number of ranges that are read at once.
        """
        places = [self._locate(number) for number in numbers]
        contents = self._remote.read(
            [(self._paths[file].name, *self._offsets[file][record : record + 2].tolist()) for file, record in places],
            threads=threads,
        )
        return [
            self._checked(content, self._paths[file], record)
            for content, (file, record) in zip(contents, places, strict=True)
        ]

    def _checked(self, content: bytes, path: Path, record: int) -> bytes:
        try:
            return _unframed(content, path=path, record=record)
        except _StaleIndex as error:
            raise _damaged(path, record) from error

    def _read_offsets(self, path: Path, *, count: int, first: int) -> Int64[np.ndarray, "records+1"]:
        offsets = read_index(path, size=self._remote.size_of(path))
        if offsets is None or len(offsets) - 1 != count:
            raise InputError(
                f"{index_path(path)} is missing or damaged, or is not that of {count} records, so {path.name} cannot "
                "be read by ranges; copy the shards first (--data.cache shards), or write the records again"
            )
        return offsets


def _unframed(content: bytes, *, path: Path, record: int) -> bytes:
    """Returns the data of a record with its frame. Raises InputError or _StaleIndex when a checksum is not right."""
    header, data = content[: _HEADER.size], content[_HEADER.size : -_CHECKSUM.size]
    length, length_crc = _HEADER.unpack(header)
    if length != len(data) or length_crc != masked_crc32c(header[:8]):
        raise _StaleIndex
    if _CHECKSUM.unpack(content[-_CHECKSUM.size :])[0] != masked_crc32c(data):
        raise InputError(f"{path}: the data of record {record} does not match its checksum; {_REMEDY}")
    return data


def _damaged(path: Path, record: int) -> InputError:
    return InputError(f"{path}: record {record} is damaged; {_REMEDY}")


class _StaleIndex(Exception):
    """The index points to an offset at which no record of that length starts."""


class _OpenFile:
    """A file descriptor. It is closed when nothing refers to this object any more."""

    def __init__(self, path: Path):
        self.descriptor = os.open(path, os.O_RDONLY)

    # The function is bound here because the module os can be gone when the interpreter ends.
    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if hasattr(self, "descriptor"):
            close(self.descriptor)


def _opener(open_files: int) -> Callable[[Path], _OpenFile]:
    return functools.lru_cache(maxsize=open_files)(_OpenFile)


def _length(header: bytes, *, path: Path, record: int) -> int:
    if len(header) != _HEADER.size:
        raise InputError(f"{path}: record {record} is cut off in its length; {_REMEDY}")
    length, crc = _HEADER.unpack(header)
    if crc != masked_crc32c(header[:8]):
        raise InputError(f"{path}: the length of record {record} does not match its checksum; {_REMEDY}")
    return length
