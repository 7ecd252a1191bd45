"""The types in which files can store the columns of tables, and the SQL that reads each of them without a loss.

Readers get every column in the type of its kind. Other types that hold the same values are read as that type: whole
numbers, decimals and UUIDs as ids, 0 and 1 as flags, dates and whole-number epochs as times, lists of texts as a text.
A value that would lose something is null, which breaks a rule of data.tables.rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from data.tables.schemas import KINDS, Column

EXACT_DOUBLES = 1 << 53
"""Whole numbers up to this one have a double of their own."""
YEAR_2000 = 946_684_800_000_000
"""The first microsecond of 2000 since 1970; an earlier number is no time, since its unit is another."""
YEAR_2100 = 4_102_444_800_000_000
"""The first microsecond of 2100; a number from it on is no time, but the digits of a date, such as 20240531120000."""
# This is a regular expression of RE2. It refuses the forms beyond ISO 8601 that DuckDB's cast accepts (slashes, zone
# names, "infinity").
_ISO_8601 = r"\s*\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?\s*([Zz]|[+-]\d{2}(:?\d{2})?)?)?\s*"
_TEXTS = {"id", "query", "text"}
_JOINED = {"text", "keywords", "cover_text"}
_NUMBERS = {"position", "level", "seconds", "grade", "score", "flag"}


@dataclass(frozen=True, kw_only=True)
class FileRun:
    """Consecutive files of a table that store its columns in the same types under the same names."""

    files: tuple[Path, ...]
    stored: dict[str, pa.DataType]
    """The type of each schema column that the files have."""
    names: dict[str, str] = field(default_factory=dict)
    """The name in the files of the columns whose name there differs in case."""

    def name(self, column: str) -> str:
        """Returns the name of a column in the files."""
        return self.names.get(column, column)


def plain(stored: pa.DataType) -> pa.DataType:
    """Returns the type of the values: of a dictionary that of its values, of an extension its storage."""
    if pa.types.is_dictionary(stored):
        return plain(stored.value_type)
    return stored.storage_type if isinstance(stored, pa.ExtensionType) and not is_uuid(stored) else stored


def is_uuid(stored: pa.DataType) -> bool:
    """Returns whether a type is that of UUIDs."""
    return isinstance(stored, pa.UuidType)


def is_text(stored: pa.DataType) -> bool:
    """Returns whether a type is text in any encoding."""
    return pa.types.is_string(stored) or pa.types.is_large_string(stored) or pa.types.is_string_view(stored)


def is_number(stored: pa.DataType) -> bool:
    """Returns whether a type is a number."""
    return pa.types.is_integer(stored) or pa.types.is_floating(stored) or pa.types.is_decimal(stored)


def is_list_of_text(stored: pa.DataType) -> bool:
    """Returns whether a type is a list of texts."""
    return (pa.types.is_list(stored) or pa.types.is_large_list(stored)) and is_text(plain(stored.value_type))


def _is_whole_decimal(stored: pa.DataType) -> bool:
    return pa.types.is_decimal128(stored) and stored.scale == 0


def accepts(column: Column, stored: pa.DataType) -> bool:
    """Returns whether a file can store a column as `stored`. A column of only nulls fits every type."""
    kind = plain(stored)
    if pa.types.is_null(kind):
        return True
    if column.kind == "time":
        whole = pa.types.is_integer(kind) or pa.types.is_floating(kind) or _is_whole_decimal(kind)
        return is_text(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind) or whole
    if column.kind == "flag" and pa.types.is_boolean(kind):
        return True
    if column.kind in _NUMBERS:
        # pandas converts whole numbers with missing values to floats.
        return is_number(kind)
    if column.kind in _TEXTS and (is_number(kind) or is_uuid(kind)):
        # DuckDB reads decimals of more than 38 digits as doubles.
        return not pa.types.is_decimal256(kind)
    return is_text(kind) or (column.name in _JOINED and is_list_of_text(kind))


def is_converted(column: Column, stored: pa.DataType) -> bool:
    """Returns whether readers get values of another sort than those in the file, such as text of whole numbers."""
    kind = plain(stored)
    if pa.types.is_null(kind):
        return False
    if column.kind == "time":
        return not (is_text(kind) or pa.types.is_timestamp(kind))
    if column.kind == "flag":
        return not pa.types.is_boolean(kind)
    return column.kind not in _NUMBERS and not is_text(kind)


def family(stored: pa.DataType | None) -> str:
    """Returns the name of a stored type for messages; all encodings of text are one type."""
    if stored is None:
        return "absent"
    kind = plain(stored)
    if pa.types.is_null(kind):
        return "only null"
    return "text" if is_text(kind) else str(kind)


def sql(column: Column, stored: pa.DataType | None, name: str) -> str:
    """Returns DuckDB's SQL of the value that readers get; it is null if the stored value cannot be read.

    Args:
      column: the column.
      stored: the type in the file; None if the file lacks the column.
      name: the name of the column in the file.
    """
    target, quoted = KINDS[column.kind].sql, f'"{name}"'
    if stored is None or pa.types.is_null(plain(stored)):
        return f"CAST(NULL AS {target})"
    kind = plain(stored)
    if column.kind == "time":
        return _time_sql(kind, quoted, target)
    if column.kind in {"position", "level"} and not pa.types.is_integer(kind):
        return f"CASE WHEN {quoted} = floor({quoted}) THEN TRY_CAST({quoted} AS {target}) END"
    if column.kind == "flag" and not pa.types.is_boolean(kind):
        return f"CASE WHEN {quoted} = 0 THEN false WHEN {quoted} = 1 THEN true END"
    if target == "VARCHAR" and pa.types.is_floating(kind):
        return f"CASE WHEN {is_whole_double(quoted)} THEN CAST(TRY_CAST({quoted} AS BIGINT) AS VARCHAR) END"
    if is_list_of_text(kind):
        return f"array_to_string({quoted}, ' ')"
    return f"TRY_CAST({quoted} AS {target})"


def is_whole_double(name: str) -> str:
    """Returns the condition, in the SQL of DuckDB and of Spark, that a double is a whole number and certainly exact."""
    return f"{name} = floor({name}) AND abs({name}) < {EXACT_DOUBLES}"


def epoch_microseconds(number: str, divided: str) -> str:
    """Returns the SQL, of DuckDB and of Spark, of microseconds since 1970 from a BIGINT whose size tells its unit.

    Below 10^11 the unit is seconds, below 10^14 milliseconds, below 10^17 microseconds, and above it nanoseconds.

    Args:
      number: the SQL of the number.
      divided: the SQL of the number divided by 1000 without a rest.
    """
    return (
        f"CASE WHEN {number} < 100000000000 THEN {number} * 1000000 WHEN {number} < 100000000000000 "
        f"THEN {number} * 1000 WHEN {number} < 100000000000000000 THEN {number} ELSE {divided} END"
    )


def _time_sql(kind: pa.DataType, name: str, target: str) -> str:
    if is_text(kind):
        return f"CASE WHEN regexp_full_match({name}, '{_ISO_8601}') THEN TRY_CAST(trim({name}) AS {target}) END"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return f"TRY_CAST({name} AS {target})"
    number = f"TRY_CAST({name} AS BIGINT)"
    microseconds = epoch_microseconds(number, f"({number} // 1000)")
    whole = f" AND {is_whole_double(name)}" if pa.types.is_floating(kind) else ""
    return (
        f"CASE WHEN {number} >= 0{whole} THEN CASE WHEN {microseconds} >= {YEAR_2000} "
        f"AND {microseconds} < {YEAR_2100} THEN make_timestamptz({microseconds}) END END"
    )


def read_as(columns: Sequence[Column], runs: Sequence[FileRun]) -> dict[str, str]:
    """Returns column -> words for the outcome on types that differ or are read as another, and on other names."""
    said = {}
    for column in columns:
        kinds = list(dict.fromkeys(family(run.stored.get(column.name)) for run in runs))
        names = list(dict.fromkeys(run.name(column.name) for run in runs if column.name in run.stored))
        converted = any(is_converted(column, kind) for run in runs if (kind := run.stored.get(column.name)) is not None)
        if len(kinds) > 1 or converted:
            said[column.name] = f"{', '.join(kinds)} read as {_reader_type(column)}"
        if names and names != [column.name]:
            said[column.name] = f"{said.get(column.name, 'read')} from {', '.join(names)}"
    return said


def _reader_type(column: Column) -> str:
    kind = KINDS[column.kind].arrow
    return "text" if is_text(kind) else str(kind)
