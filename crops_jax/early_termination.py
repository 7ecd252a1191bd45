"""SIGTERM in a program's first seconds, before crops_jax.program listens: status 3, as later."""

import os
import signal
import sys


def answer_while_importing() -> None:
    """For the __init__ of a package of programs: while `python -m PACKAGE.NAME` imports, SIGTERM ends it with status 3.

    Nothing is under way in the imports, which take seconds; crops_jax.program then takes the signal over. Does
    nothing when the package is imported from elsewhere.
    """
    if sys.argv[0] == "-m":  # so it reads only while `python -m` looks for its module
        signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
