"""The errors that end a program, each with its exit status."""

import errno
import os
import signal
import sys
from typing import Any

CHAIN_VARIABLE = "CROPS_JAX_STEP"
"""The environment variable that a chain sets for its programs, whose interrupts it reports itself."""

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

    The message names the file, row, column or field, the value found in it, and what to do.
    """

    status = 2


class InputErrors(InputError):
    """Several problems of one input, which are shown together so that one run finds them all."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        counted = [f"{number}. {problem}" for number, problem in enumerate(problems, start=1)]
        super().__init__(problems[0] if len(problems) == 1 else "\n".join([f"{len(problems)} problems", *counted]))


class Interrupted(BaseException):
    """The program received a request to stop; the same command continues the work later (exit status 3)."""

    status = 3


class NamedFailure(Exception):
    """A failure that no argument caused, such as a NaN loss, a full disk or an unreachable endpoint (exit status 4).

    The last good state is kept, and the message names its location.
    """

    status = 4


class AnotherProcessFailed(Exception):
    """Another process of the cluster failed. It prints the reason; this process only ends with the same exit status."""

    def __init__(self, status: int):
        super().__init__(f"another process of the cluster failed with exit status {status}")
        self.status = status


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ROOM_WORDS = ("No space left on device", "Disk quota exceeded", "File too large")


def is_full_disk(error: BaseException | None) -> bool:
    """Returns whether an error, or one that caused it, says that the disk or quota is full.

    A limit of the size of a file (ulimit -f, or the file system's own) counts too.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        # TensorStore, safetensors and shutil.copytree report it as text.
        if any(words in str(error) for words in _NO_ROOM_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def one_line(error_or_text: BaseException | str, *, limit: int = 200) -> str:
    """Returns the text of an error in one line, for the parentheses of a message.

    Each run of white space becomes one space, and text beyond the limit is cut off.

    Args:
      error_or_text: an exception, or a text. For an exception without a text, the name of its type is used.
      limit: the maximum number of characters.
    """
    text = " ".join(str(error_or_text).split())
    if not text and isinstance(error_or_text, BaseException):
        text = type(error_or_text).__name__
    return text[:limit]


def explained(error: BaseException) -> tuple[int, str] | None:
    """Returns the exit status and the message of an exception that ends a program.

    It returns None for a defect of the program, for which a traceback is printed instead.
    """
    if isinstance(error, InputError | Interrupted | NamedFailure):
        return error.status, str(error) or "interrupted; call the same command again to go on"
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.status, "interrupted; call the same command again"
    if is_full_disk(error):
        # An error of copying names what was read first, and then what was written.
        where = getattr(error, "filename2", None) or getattr(error, "filename", None) or one_line(error)
        what, remedy = "the disk is full", "free some space"
        if getattr(error, "errno", None) == errno.EFBIG or "File too large" in str(error):
            what, remedy = "a file has reached the largest size that is allowed", "raise the limit (ulimit -f)"
        return NamedFailure.status, f"{what} ({where}); {remedy} and call the same command again"
    if isinstance(error, RuntimeError) and str(error).startswith("Unable to initialize backend"):
        return InputError.status, f"JAX cannot use a device of this machine ({one_line(error)}); --device cpu avoids it"
    if isinstance(error, OSError) and error.filename is not None and error.errno in _WRONG_PATH:
        return InputError.status, f"{os.fsdecode(error.filename)}: {error.strerror}; check the path"
    return None


def answer_while_importing() -> None:
    """Makes SIGTERM and Ctrl-C end `python -m PACKAGE.NAME` with status 3 while the program imports its modules.

    The __init__ of a package of programs calls it. The function does nothing if other code imports the package.
    """
    if sys.argv[0] == "-m":  # sys.argv[0] has this value only while `python -m` locates its module.
        end_at_once_on_signals()


def end_at_once_on_signals() -> None:
    """Makes SIGTERM and SIGINT end this process at once with status 3, before there is work that can be lost.

    The imports of a program take seconds; afterwards crops_jax.program handles both signals.
    """
    signal.signal(signal.SIGTERM, _end_at_once)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end_at_once)


def _end_at_once(*_: Any) -> None:
    if CHAIN_VARIABLE not in os.environ:
        os.write(2, b"error: interrupted before anything was done; call the same command again\n")
    os._exit(Interrupted.status)
