"""The files of a folder in a bucket that its local copy leaves out, and that are read by ranges instead.

    CROPS_CACHE/inputs/KEY/NAME                 the copy, without these files
    CROPS_CACHE/inputs/KEY/NAME.remote.json     the path in the bucket, and size and version of each file left out

Whoever opens the copy finds the note beside it, also a worker process. A file that is no longer the one of the note is
never read: every request names its version.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from crops_jax.artifacts.atomic import write_text
from crops_jax.artifacts.json_fields import read_object
from crops_jax.errors import InputError, NamedFailure
from crops_jax.storage.objects.store import Entry, ObjectStore

GAP_BYTES = 64 * 1024
"""The maximum number of bytes between two ranges that are read by one request. They take less time than a request."""
PIECE_BYTES = 8 * 1024 * 1024
"""The maximum number of bytes of a request for several ranges."""

Range = tuple[str, int, int]
"""The name of a file, its first byte, and the byte after the last one."""


class Piece(NamedTuple):
    """One request for a part of a file.

    name, start, end: the file, the first byte and the byte after the last one.
    ranges: the places, among the ranges that are wanted, of those that lie in the piece.
    """

    name: str
    start: int
    end: int
    ranges: list[int]


def pieces(ranges: Sequence[Range], *, gap: int = GAP_BYTES, most: int = PIECE_BYTES) -> list[Piece]:
    """Returns the requests for ranges of files, ordered by file and first byte. Each range lies in one of them.

    Args:
      ranges: the ranges in any order. They can repeat one another.
      gap: ranges of a file are read together when so many bytes, or fewer, are between them.
      most: the maximum number of bytes of a piece. A longer range is a piece of its own.
    """
    found: list[Piece] = []
    for place in sorted(range(len(ranges)), key=ranges.__getitem__):
        name, start, end = ranges[place]
        last = found[-1] if found else Piece("", 0, 0, [])
        is_near = end <= last.end or (start - last.end <= gap and end - last.start <= most)
        if last.name == name and is_near:
            found[-1] = last._replace(end=max(end, last.end))
            last.ranges.append(place)
        else:
            found.append(Piece(name, start, end, [place]))
    return found


class RemoteFiles:
    """The files of a folder in a bucket that are read by ranges. It can be pickled, and several threads can read.

    Attributes:
      url: the folder in the bucket.
      entries: size and version of each file by its name, as they were when the copy was made.
    """

    def __init__(self, url: str, entries: Mapping[str, Entry]):
        self.url, self.entries = url, dict(entries)

    @classmethod
    def of(cls, copy: Path) -> "RemoteFiles | None":
        """Returns the files that a local copy leaves out; None for a whole copy and any other folder."""
        note = note_path(copy)
        if not note.is_file():
            return None
        content = read_object(note, remedy=f"remove {note.parent}")
        return cls(content["url"], {name: Entry(*entry) for name, entry in content["files"].items()})

    def write(self, copy: Path) -> None:
        """Notes beside a local copy that it leaves these files out."""
        content = {"url": self.url, "files": self.entries}
        write_text(note_path(copy), json.dumps(content, indent=1, sort_keys=True) + "\n")

    @property
    def total_bytes(self) -> int:
        """The size of all these files in bytes."""
        return sum(entry.size for entry in self.entries.values())

    def size_of(self, path: Path) -> int:
        """Returns the size in bytes of the file of this name. Raises InputError when there is none."""
        if path.name not in self.entries:
            raise InputError(f"{self.url}/{path.name}: no such file; restore it or write the records again")
        return self.entries[path.name].size

    def read(self, ranges: Sequence[Range], *, threads: int) -> list[bytes]:
        """Returns the bytes of ranges, in their order. Ranges that are near one another are read by one request.

        Raises NamedFailure when a file is gone or was replaced, or when the server fails again and again.

        Args:
          ranges: the ranges, none of them empty.
          threads: the maximum number of requests at the same time.
        """
        found: list[bytes] = [b""] * len(ranges)
        asked = pieces(ranges)
        with ThreadPoolExecutor(max(1, min(threads, len(asked)))) as pool:
            for piece, content in zip(asked, pool.map(self._read, asked), strict=True):
                for place in piece.ranges:
                    _, start, end = ranges[place]
                    found[place] = content[start - piece.start : end - piece.start]
        return found

    def _read(self, piece: Piece) -> bytes:
        try:
            return self._store.read_range(piece.name, piece.start, piece.end, listed=self.entries[piece.name])
        except FileNotFoundError as error:
            raise NamedFailure(
                f"{self.url}/{piece.name} was removed or replaced while it was read; restore the records and call the "
                "same command again"
            ) from error

    @functools.cached_property
    def _store(self) -> ObjectStore:
        return ObjectStore(self.url)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_store"}


def note_path(copy: Path) -> Path:
    """Returns the path of the note that lies beside a local copy that leaves files out."""
    return copy.with_name(f"{copy.name}.remote.json")
