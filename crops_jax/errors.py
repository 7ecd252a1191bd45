"""The ways in which a program may end other than well, each with its exit status."""


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
