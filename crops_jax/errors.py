"""The ways in which a program may end other than well, each with its exit status."""

import errno


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


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that the disk or quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        # TensorStore and safetensors report it as text.
        if any(words in str(error) for words in ("No space left on device", "Disk quota exceeded")):
            return True
        error = error.__cause__ or error.__context__
    return False
