"""The DuckDB sessions of all programs: their settings, --memory-limit, and the error when memory or disk is full."""

import contextlib
import re
import secrets
import tempfile
from collections.abc import Iterator

import duckdb

from crops_jax.errors import InputError, NamedFailure, one_line

_UNITS = {unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb"))}
_UNITS |= {unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib"), start=1)}


def memory_bytes(memory_limit: str) -> int:
    """Returns the number of bytes of a size such as "4GB".

    A size is a positive number and a unit: B, KB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024).

    Raises InputError if the text is not a size.
    """
    match = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kmgt]?i?b)\s*", memory_limit.lower())
    size = int(float(match[1]) * _UNITS.get(match[2], 0)) if match else 0
    if not 0 < size < 2**62:
        raise InputError(f"--memory-limit {memory_limit!r} is no size; write 4GB or 500MB")
    return size


def duckdb_size(memory_limit: str) -> str:
    """Returns a size in the form of DuckDB's setting memory_limit. Raises InputError as `memory_bytes` does."""
    return f"{memory_bytes(memory_limit)}B"


def connect_duckdb() -> duckdb.DuckDBPyConnection:
    """Returns a connection to a new database in memory.

    Its time zone is UTC, progress bars are off, and it spills into the system's temporary directory.
    """
    connection = duckdb.connect(config={**duckdb_settings()})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    return connection


def duckdb_settings() -> dict[str, str]:
    """Returns the settings of a database in memory, for duckdb.connect."""
    # By default a database in memory spills into a folder of the working directory. DuckDB creates this folder instead,
    # and removes it.
    return {"temp_directory": f"{tempfile.gettempdir()}/crops_jax-duckdb-{secrets.token_hex(8)}"}


@contextlib.contextmanager
def named_lack_of_room(what: str = "") -> Iterator[None]:
    """Turns DuckDB's error that memory or disk is full into NamedFailure; other errors pass unchanged.

    Args:
      what: the text with which the message begins, such as "table searches: ".
    """
    try:
        yield
    except duckdb.Error as error:
        if not isinstance(error, duckdb.OutOfMemoryException) and "No space left" not in str(error):
            raise
        raise NamedFailure(
            f"{what}neither memory nor the temporary directory {tempfile.gettempdir()} has room for the work of DuckDB "
            f"({one_line(error)}); free space, allow more with --memory-limit, or set TMPDIR to a larger disk"
        ) from error
