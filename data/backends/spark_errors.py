"""The errors of Spark as errors that end a program: one message with the table, the file and the cause."""

import contextlib
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path

from crops_jax.errors import InputError, NamedFailure, one_line
from data.tables.files import TableFiles

_CAUSE = re.compile(r"^\s*(?:Caused by: |: )(.+)$", re.MULTILINE)
_FILE = re.compile(r"file:/+(\S+\.parquet)")
_PYTHON_ERROR = re.compile(r"^(\w[\w.]*(?:Error|Exception|Failure)\b.*)$", re.MULTILINE)
_CAUSE_CHARACTERS = 300


@contextlib.contextmanager
def named_spark_errors(tables: Iterable[TableFiles]) -> Iterator[None]:
    """Turns every error of Spark in its block into InputError or NamedFailure; other errors pass unchanged.

    The files of the tables have been read to their ends by DuckDB before, so an error that names one of them is about
    a form that Spark does not have, such as the codec Brotli. All other errors are failures of Spark itself.

    Args:
      tables: the tables whose files Spark reads in the block.
    """
    try:
        yield
    except Exception as error:
        if not is_spark_error(error):
            raise
        raise _named(error, tables) from error


def is_spark_error(error: BaseException) -> bool:
    """Returns whether an exception comes from pyspark or from its bridge to Java; neither is imported for it."""
    return any(kind.__module__.partition(".")[0] in {"pyspark", "py4j"} for kind in type(error).__mro__)


def spark_cause(error: BaseException) -> str:
    """Returns the innermost cause of an error of Spark in one line, without the traces of Java and Python."""
    text = str(error)
    python_errors = _PYTHON_ERROR.findall(text) if "Traceback (most recent call last)" in text else []
    causes = python_errors or _CAUSE.findall(text) or text.strip().splitlines()[:1]
    return one_line(causes[-1] if causes else error, limit=_CAUSE_CHARACTERS)


def _named(error: BaseException, tables: Iterable[TableFiles]) -> InputError | NamedFailure:
    paths = {Path("/", urllib.parse.unquote(path)) for path in _FILE.findall(str(error))}
    cause = spark_cause(error)
    for table in tables:
        for file in table.files:
            if file.absolute() in paths:
                return InputError(
                    f"table {table.name}: Spark cannot read {file} ({cause}); write the file with the codec snappy or "
                    "zstd and types that Spark has, or leave --backend out to run on DuckDB"
                )
    return NamedFailure(
        f"Spark failed ({cause}); check the memory and the log of the driver and of its executors, and call the same "
        "command again, or leave --backend out to run on DuckDB"
    )
