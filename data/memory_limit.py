"""--memory-limit of the programs that read tables: a size such as 4GB."""

import re

from crops_jax.errors import InputError

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
