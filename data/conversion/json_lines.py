"""JSON Lines with one object on each line, in files that tools of every kind wrote.

A key is a column of the whole input, whichever lines have it. A line can be wrapped as OpenSearch's tools wrap it, with
the keys in `_source`. A name with dots is the key itself or a path of keys. A line that is no JSON object or no UTF-8
is left out and counted. Python parts the files into lines, and DuckDB parses them.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import duckdb
import pyarrow as pa

from crops_jax.errors import InputError, one_line
from crops_jax.program.progress import ProgressLine
from data.backends.sql import quoted_name, quoted_text

LINE_BYTES = 1 << 26
_BATCH_BYTES = 1 << 24
_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_SHOWN = 60
_IS_OBJECT = "json_valid(text) AND json_type(text) = 'OBJECT'"


def load_json_lines(
    connection: duckdb.DuckDBPyConnection, table: str, files: Sequence[Path], columns: Mapping[str, str]
) -> dict[str, int]:
    """Reads files into a DuckDB table with the columns file (its number), line (from 1), broken, and those given.

    `broken` is the beginning of a line that is left out, else null. Values are text: a list of texts is joined by
    blanks if its column is VARCHAR, and other lists and objects stay JSON.

    Args:
      connection: the DuckDB connection.
      table: the name of the new table, quoted.
      files: the files, which can be gzipped.
      columns: key or path of keys -> the SQL type into which the caller casts the text.

    Returns:
      reason -> the number of lines that are left out.

    Raises:
      InputError: a file is damaged, no line is a JSON object, or there is no line.
    """
    paths = {column: _paths(column) for column in columns}
    every = [path for found in paths.values() for path in found]
    listed = ", ".join(map(quoted_text, every))
    values = []
    for column, found in paths.items():
        places = ", ".join(f"nullif(CAST(found[{every.index(path) + 1}] AS VARCHAR), 'null')" for path in found)
        values.append(f"{_as_text(f'coalesce({places})', columns[column])} AS {quoted_name(column)}")
    fields = ", ".join(f"{quoted_name(column)} VARCHAR" for column in columns)
    connection.execute(f"CREATE TABLE {table} (file INTEGER, line BIGINT, broken VARCHAR, {fields})")
    for number, file in enumerate(files):
        for batch in _batches(file):
            connection.register("arriving", batch)
            connection.execute(
                f"INSERT INTO {table} SELECT {number}, line, CASE WHEN found IS NULL THEN left(text, {_SHOWN}) END, "
                f"{', '.join(values)} FROM ("
                f"SELECT *, CASE WHEN {_IS_OBJECT} THEN json_extract(text, [{listed}]) END AS found FROM arriving)"
            )
            connection.unregister("arriving")
    return _left_out(connection, table, files)


def json_keys(connection: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> list[str]:
    """Returns the keys of all objects of files, those within `_source` included."""
    keys: dict[str, None] = {}
    for file in files:
        for batch in _batches(file):
            connection.register("arriving", batch)
            for expression in ("text", "json_extract(text, '$._source')"):
                found = connection.execute(
                    f"SELECT DISTINCT unnest(json_keys({expression})) AS key FROM arriving WHERE {_IS_OBJECT} "
                    f"AND json_type({expression}) = 'OBJECT' ORDER BY key"
                ).fetchall()
                keys.update(dict.fromkeys(key for (key,) in found))
            connection.unregister("arriving")
    return list(keys)


def has_key(keys: Sequence[str], column: str) -> bool:
    """Returns whether keys have a column's key, or the first key of its path."""
    return column in keys or ("." in column and column.split(".")[0] in keys)


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """Opens a file for reading bytes, also a gzipped one. Raises InputError where it is damaged or cut off."""
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else open(file, "rb") as lines:
            yield cast(BinaryIO, lines)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{file} is damaged or cut off ({one_line(error)}); get it again") from error


def text_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yields (number from 1, text) of the lines that are not blank, without a byte order mark.

    The text of a line that is no UTF-8 is no JSON: it begins with a control character.

    Raises:
      InputError: the file is damaged or in UTF-16, or a line is too long.
    """
    with opened(file) as lines:
        for number, line in enumerate(
            ProgressLine(
                iter(lambda: lines.readline(LINE_BYTES + 1), b""),
                desc=f"reading {file.name}",
                unit="lines",
                leave=False,
            ),
            start=1,
        ):
            if len(line) > LINE_BYTES:
                raise InputError(f"{file}, line {number}: longer than {LINE_BYTES} bytes; write one object on a line")
            if number == 1 and line.startswith(_UTF_16):
                raise InputError(f"{file} is UTF-16; write it in UTF-8, such as with iconv -f UTF-16 -t UTF-8")
            content = line.removeprefix(_BOM) if number == 1 else line
            if not content.isspace() and content:
                try:
                    yield number, content.decode()
                except UnicodeDecodeError:
                    yield number, "\x01" + content.decode(errors="replace")


def json_objects(file: Path, left_out: dict[int, str]) -> Iterator[tuple[int, dict]]:
    """Yields (line, object) of a file, and adds to `left_out` the reason by line where a line is no JSON object.

    As in load_json_lines, half a surrogate pair makes a line no JSON.
    """
    for number, text in text_lines(file):
        try:
            value = json.loads(text)
            if not isinstance(value, dict):
                raise ValueError(f"{type(value).__name__} instead of an object")
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            left_out[number] = f"half a surrogate pair, {error.reason}"
        except (ValueError, RecursionError) as error:
            left_out[number] = one_line(error)
        else:
            yield number, value


def _batches(file: Path) -> Iterator[pa.Table]:
    numbers: list[int] = []
    texts: list[str] = []
    size = 0
    for number, text in text_lines(file):
        numbers.append(number)
        texts.append(text)
        size += len(text)
        if size > _BATCH_BYTES:
            yield pa.table({"line": numbers, "text": pa.array(texts, pa.large_string())})
            numbers, texts, size = [], [], 0
    if numbers:
        yield pa.table({"line": numbers, "text": pa.array(texts, pa.large_string())})


def _left_out(connection: duckdb.DuckDBPyConnection, table: str, files: Sequence[Path]) -> dict[str, int]:
    counts = connection.execute(
        f"SELECT count(*), count(broken), min({{'file': file, 'line': line, 'text': broken}}) "
        f"FILTER (broken IS NOT NULL) FROM {table}"
    ).fetchall()[0]
    lines, broken, first = counts
    if not lines:
        raise InputError(f"{files[0]} is empty; get it again")
    if not broken:
        return {}
    file, line, text = files[first["file"]], first["line"], first["text"]
    what = "no UTF-8" if text.startswith("\x01") else "no JSON object"
    if broken == lines:
        raise InputError(
            f"{file} is not jsonl or is cut off (line {line} is {what}: {text.lstrip(chr(1))!r}); "
            "write one JSON object on each line, or get it again"
        )
    return {f"no JSON object (first: {file.name}, line {line}{', no UTF-8' if what == 'no UTF-8' else ''})": broken}


def _paths(column: str) -> list[str]:
    """Returns the places of a column in a line, the first that has a value counts."""
    keys = [f"$.{quoted_name(column)}"]
    if "." in column:
        keys.append("$." + ".".join(quoted_name(part) for part in column.split(".")))
    return keys + [f"$._source{key.removeprefix('$')}" for key in keys]


def _as_text(value: str, kind: str) -> str:
    listed = value if kind.endswith("[]") else f"array_to_string(from_json({value}, '[\"VARCHAR\"]'), ' ')"
    return (
        f"CASE WHEN {value} LIKE '[%' THEN {listed} WHEN {value} LIKE '\"%' THEN json_extract_string({value}, '$') "
        f"ELSE {value} END"
    )
