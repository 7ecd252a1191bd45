"""Names, texts and file names in the SQL of DuckDB."""

import re
from collections.abc import Iterable
from pathlib import Path


def quoted_name(name: str) -> str:
    """Returns the name of a table or column, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(value: str | Path) -> str:
    """Returns a text, or a path as a text, as a literal of SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def quoted_files(paths: Iterable[Path]) -> str:
    """Returns the list of files for read_parquet or read_csv, which would take a bare name with * for a pattern."""
    return "[" + ", ".join(quoted_text(re.sub(r"([*?\[])", r"[\1]", str(path))) for path in paths) + "]"
