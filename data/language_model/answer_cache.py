"""The cache of paid answers on disk: each answer is one line of JSON, appended and flushed before it is used.

A last line that a crash cut off is dropped when the file is opened. Only digests and byte positions are in memory.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from crops_jax.artifacts.lock import exclusive
from crops_jax.errors import InputError


class Answer(NamedTuple):
    """The answer of the endpoint to one request."""

    content: str
    prompt_tokens: int
    completion_tokens: int


class AnswerCache:
    """The answers of a file by key; a key has several answers if earlier ones were not valid.

    Use it as a context manager. Only one process can write at a time: a second one gets an InputError.
    """

    def __init__(self, file: Path | str, *, read_only: bool = False):
        """
        Args:
          file: the file of the answers.
          read_only: whether the file is opened without a lock and never changed, so that another process can write.
        """
        self.file = Path(file)
        self._places: dict[bytes, tuple[tuple[int, int], ...]] = {}
        self.prompt_tokens = 0
        """The number of prompt tokens of all answers in the file; completion_tokens is that of the answers."""
        self.completion_tokens = 0
        # The file is unbuffered, so that bytes that could not be written are not written again when it is closed.
        self._opened = open(self.file, "rb" if read_only else "a+b", buffering=0)  # noqa: SIM115
        self._lock = contextlib.ExitStack()
        try:
            if not read_only:
                self._lock.enter_context(
                    exclusive(
                        self.file,
                        refusal=f"{self.file} is being written by another process; wait for it, or choose another "
                        "output",
                    )
                )
            self._read(drop_torn=not read_only)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> "AnswerCache":
        return self

    def __exit__(self, *_) -> None:
        self._close()

    def count(self, key: str) -> int:
        """Returns the number of answers of a key."""
        return len(self._places.get(bytes.fromhex(key), ()))

    def answers(self, key: str) -> list[Answer]:
        """Returns the answers of a key, the oldest first."""
        descriptor = self._opened.fileno()
        places = self._places.get(bytes.fromhex(key), ())
        return [self._parse(os.pread(descriptor, length, place), place)[1] for place, length in places]

    def add(self, key: str, answer: Answer) -> None:
        """Appends an answer; it is on disk when this returns."""
        line = (json.dumps({"key": key, **answer._asdict()}) + "\n").encode()
        place = self._opened.seek(0, os.SEEK_END)
        try:
            written = 0
            while written < len(line):
                written += self._opened.write(line[written:])
            os.fsync(self._opened.fileno())
        except OSError:
            # If the disk is full, half a line would damage the answers that other requests append later.
            self._opened.truncate(place)
            raise
        self._remember(key, answer, (place, len(line)))

    def _close(self) -> None:
        self._lock.close()
        self._opened.close()

    def _read(self, *, drop_torn: bool) -> None:
        place = 0
        with open(self.file, "rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    if drop_torn:
                        self._opened.truncate(place)
                    return
                self._remember(*self._parse(line, place), (place, len(line)))
                place += len(line)

    def _parse(self, line: bytes, place: int) -> tuple[str, Answer]:
        try:
            found = json.loads(line)
            key = found.pop("key")
            bytes.fromhex(key)
            return key, Answer(str(found["content"]), int(found["prompt_tokens"]), int(found["completion_tokens"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise InputError(
                f"{self.file}: what stands at byte {place} is not an answer ({error}); delete that line, the others "
                "are kept"
            ) from error

    def _remember(self, key: str, answer: Answer, place: tuple[int, int]) -> None:
        digest = bytes.fromhex(key)
        self._places[digest] = (*self._places.get(digest, ()), place)
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
