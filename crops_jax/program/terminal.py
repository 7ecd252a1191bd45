"""Decides whether a stream is a terminal, how wide its lines are, and what can be printed there."""

import os
from typing import TextIO

MAX_COLUMNS = 80
"""The maximum width of a line of progress or of a table, however wide the terminal is."""


def is_terminal(stream: TextIO | int) -> bool:
    """Returns whether a person reads what is written to a stream; files and pipes are for programs.

    Args:
      stream: an open stream, or the number of a file descriptor.
    """
    try:
        return os.isatty(stream) if isinstance(stream, int) else stream.isatty()
    except (OSError, ValueError):  # a closed stream
        return False


def columns(stream: TextIO | int) -> int:
    """Returns the number of columns that a line may have: those of the terminal, and at most MAX_COLUMNS."""
    try:
        width = os.get_terminal_size(stream if isinstance(stream, int) else stream.fileno()).columns
    except (OSError, ValueError):  # no terminal, or no file descriptor
        width = 0
    return min(width or MAX_COLUMNS, MAX_COLUMNS)


def printable(text: str) -> str:
    """Returns a text in one line without control characters, which a terminal would execute."""
    return "".join(character if character.isprintable() else " " for character in text)
