"""DuckDB as every program opens it: settings, --memory-limit, and what is said when it has no room for its work."""

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
    """Bytes of a size: a positive number and B, KB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (of 1024).

    Raises InputError when it is no size.
    """
    found = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kmgt]?i?b)\s*", memory_limit.lower())
    size = int(float(found[1]) * _UNITS.get(found[2], 0)) if found else 0
    if not 0 < size < 2**62:
        raise InputError(f"--memory-limit {memory_limit!r} is no size; write 4GB or 500MB")
    return size


def duckdb_size(memory_limit: str) -> str:
    """The same as DuckDB's setting memory_limit takes it. Raises as `memory_bytes`."""
    return f"{memory_bytes(memory_limit)}B"


def connect_duckdb() -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory: time zone UTC, no progress bars, spilling into the system's temporary directory."""
    connection = duckdb.connect(config={**duckdb_settings()})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    return connection


def duckdb_settings() -> dict[str, str]:
    """The settings of a database in memory, for duckdb.connect."""
    # By default a database in memory spills into a folder of the working directory; DuckDB makes and removes this one.
    return {"temp_directory": f"{tempfile.gettempdir()}/crops_jax-duckdb-{secrets.token_hex(8)}"}


@contextlib.contextmanager
def named_lack_of_room(what: str = "") -> Iterator[None]:
    """Turns DuckDB's complaint that it ran out of memory or disk into NamedFailure; other errors pass."""
    try:
        yield
    except duckdb.Error as error:
        if not isinstance(error, duckdb.OutOfMemoryException) and "No space left" not in str(error):
            raise
        raise NamedFailure(
            f"{what}neither memory nor the temporary directory {tempfile.gettempdir()} has room for the work of DuckDB "
            f"({one_line(error)}); free some, allow more with --memory-limit, or set TMPDIR to a larger disk"
        ) from error
