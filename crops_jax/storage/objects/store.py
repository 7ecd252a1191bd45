"""Objects of a bucket behind gs:// or s3://: list, read whole or in part, write, create once, remove.

Every call is tried again with growing waits when the server or the connection fails. Credentials, buckets and objects
that are missing, and settings that the client cannot use, are errors of the user, which say what to do at once.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from crops_jax.errors import InputError
from crops_jax.storage.objects.attempts import attempt
from crops_jax.storage.objects.clients import age_seconds, file_system_of, read_range

T = TypeVar("T")


class Entry(NamedTuple):
    """One object below a path."""

    size: int
    """The number of bytes."""
    version: str
    """A text that changes when the object is written again with other bytes: its generation or ETag."""


class ObjectStore:
    """The objects at and below one path in a bucket. Names of objects are relative to the path; "" is the path itself.

    Every method raises InputError when the user can help (credentials, bucket), FileNotFoundError when there is no such
    object, and NamedFailure when the server fails again and again.
    """

    def __init__(self, url: str):
        """Opens a path.

        Args:
          url: gs://BUCKET/PATH or s3://BUCKET/PATH.
        """
        self.url = url.rstrip("/")
        self.scheme, _, self._path = self.url.partition("://")
        self._file_system = self._attempt(lambda: file_system_of(self.scheme))

    def listing(self) -> dict[str, Entry]:
        """Returns the objects at and below the path by their names, in the order of the names.

        Raises InputError when the bucket does not exist.
        """
        found = self._attempt(self._find)
        if not found:
            self._check_bucket()
        entries = {}
        for path, info in sorted(found.items()):
            version = info.get("generation") or info.get("ETag") or info.get("etag") or ""
            entries[path[len(self._path) :].removeprefix("/")] = Entry(int(info["size"]), str(version).strip('"'))
        return entries

    def names_here(self) -> list[str]:
        """Returns the names of the objects directly below the path."""

        def find() -> list[str]:
            with contextlib.suppress(FileNotFoundError):
                return self._file_system.ls(self._path, detail=False)
            return []

        return [path.rpartition("/")[2] for path in self._attempt(find)]

    def read(self, name: str) -> bytes:
        """Returns the bytes of an object."""
        return self._attempt(lambda: self._file_system.cat_file(self._full(name)))

    def read_range(self, name: str, start: int, end: int, *, listed: Entry) -> bytes:
        """Returns bytes `start` to `end` - 1 of an object; an answer that is cut short is asked for again.

        Args:
          name: the object.
          start: the first byte.
          end: the byte after the last one.
          listed: the object as a listing had it.

        Raises FileNotFoundError when the object is gone, or has another version or size than `listed`.
        """

        def get() -> bytes:
            wanted = f"bytes={start}-{end - 1}"
            data, answered = read_range(self.scheme, self._file_system, self._full(name), wanted, listed.version)
            size = answered.rpartition("/")[2]
            if size != str(listed.size) and size.isdigit():
                raise FileNotFoundError(f"{size} bytes instead of {listed.size}")
            if len(data) != end - start or not answered:
                raise OSError(f"{len(data)} bytes arrived instead of the {end - start} that were asked for")
            return data

        try:
            return self._attempt(get)
        except FileExistsError as error:
            raise FileNotFoundError(f"{self.url}/{name} is another version") from error

    def download(self, name: str, file: Path, *, size: int) -> None:
        """Writes an object to a file whose folder exists; an answer that is cut short is asked for again.

        Args:
          name: the object.
          file: the file to write.
          size: the number of bytes that the object has.
        """

        def get() -> None:
            self._file_system.get_file(self._full(name), str(file))
            if (found := file.stat().st_size) != size:
                raise OSError(f"{found} of {size} bytes arrived")

        self._attempt(get)

    def write(self, name: str, data: bytes) -> None:
        """Writes an object, whatever was there."""
        self._attempt(lambda: self._file_system.pipe_file(self._full(name), data))

    def upload(self, name: str, file: Path, *, replaces: bool = True) -> None:
        """Writes a file as an object.

        Args:
          name: the object.
          file: the local file.
          replaces: whether an object that is there is replaced. If not (a conditional put), FileExistsError is raised
            when there is one with other bytes. One with these very bytes counts as written by this call.
        """
        mode = "overwrite" if replaces else "create"
        try:
            self._attempt(lambda: self._file_system.put_file(str(file), self._full(name), mode=mode))
        except FileExistsError:
            if self.read(name) != file.read_bytes():
                raise

    def create(self, name: str, data: bytes) -> bool:
        """Writes an object unless there is one (a conditional put), and returns whether it is there with these bytes.

        An object with these very bytes counts as written by this call, because an answer can be lost.
        """
        try:
            self._attempt(lambda: self._file_system.pipe_file(self._full(name), data, mode="create"))
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                return self.read(name) == data
            return False
        return True

    def written(self, name: str) -> float:
        """Returns the time when an object was written, in seconds since 1970 by the clock of the server."""
        return self._attempt(lambda: self._file_system.modified(self._full(name))).timestamp()

    def age_seconds(self, name: str) -> float:
        """Returns the seconds since an object was written, by the clock of the server alone."""
        return self._attempt(lambda: age_seconds(self.scheme, self._file_system, self._full(name)))

    def remove(self, names: list[str]) -> None:
        """Removes objects; those that do not exist are left out."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._attempt(lambda name=name: self._file_system.rm_file(self._full(name)))

    def _full(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path

    def _find(self) -> dict[str, Any]:
        try:
            found = self._file_system.find(self._path, detail=True)
        except FileNotFoundError:
            return {}
        # Consoles mark folders by empty objects whose names end with a slash.
        return {path: info for path, info in found.items() if info["type"] == "file" and not path.endswith("/")}

    def _check_bucket(self) -> None:
        bucket = self._path.partition("/")[0]
        try:
            with contextlib.suppress(InputError):  # the user can have access to the path alone
                self._attempt(lambda: self._file_system.ls(bucket))
        except FileNotFoundError as error:
            raise InputError(
                f"{self.url}: there is no bucket {bucket}; check the name, or make the bucket first"
            ) from error

    def _attempt(self, call: Callable[[], T]) -> T:
        return attempt(self.url, call)
