"""The ways in which a program may end other than well, each with its exit status."""

import errno
import os
import signal
import sys

_WRONG_PATH = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}


class InputError(Exception):
    """The user's input or arguments are wrong (exit status 2).

    The message names the file, row, column or field, what was found, and what to do.
    """

    status = 2


class Interrupted(BaseException):
    """The program was asked to stop and can be called again to go on (exit status 3)."""

    status = 3


class NamedFailure(Exception):
    """A failure that is nobody's argument: NaN loss, a full disk, an endpoint that is down (exit status 4).

    The last good state is kept; the message says where it is.
    """

    status = 4


class AnotherProcessFailed(Exception):
    """Another process of the cluster failed and says why: this one ends with its exit status and says nothing."""

    def __init__(self, status: int):
        super().__init__(f"another process of the cluster failed with exit status {status}")
        self.status = status


def is_full_disk(error: BaseException | None) -> bool:
    """Returns whether an error, or one that caused it, says that the disk or quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        # TensorStore and safetensors report it as text.
        if any(words in str(error) for words in ("No space left on device", "Disk quota exceeded")):
            return True
        error = error.__cause__ or error.__context__
    return False


def one_line(error_or_text: BaseException | str, *, limit: int = 200) -> str:
    """The text of an error for the brackets of a message: each run of white space is one space, and the end is cut.

    Args:
      error_or_text: an exception, or a text. An exception without a text gives the name of its type.
      limit: the most characters.
    """
    text = " ".join(str(error_or_text).split())
    if not text and isinstance(error_or_text, BaseException):
        text = type(error_or_text).__name__
    return text[:limit]


def explained(error: BaseException) -> tuple[int, str] | None:
    """Exit status and message for whatever ends a program; None for a defect, which has a traceback instead."""
    if isinstance(error, InputError | Interrupted | NamedFailure):
        return error.status, str(error) or "interrupted; call the same command again to go on"
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.status, "interrupted; call the same command again"
    if is_full_disk(error):
        where = getattr(error, "filename", None) or error
        return NamedFailure.status, f"the disk is full ({where}); free some space and call the same command again"
    if isinstance(error, OSError) and error.filename is not None and error.errno in _WRONG_PATH:
        return InputError.status, f"{os.fsdecode(error.filename)}: {error.strerror}; check the path"
    return None


def answer_while_importing() -> None:
    """Makes SIGTERM end `python -m PACKAGE.NAME` with status 3 while it imports; called in the __init__ of a package.

    Nothing is under way in the imports, which take seconds; crops_jax.program then takes the signal over. Does
    nothing when the package is imported from elsewhere.
    """
    if sys.argv[0] == "-m":  # so it reads only while `python -m` looks for its module
        signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
