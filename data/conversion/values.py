"""SQL that reads the values of log tables from text: flags, numbers and times. A value that it cannot read is null."""

from data.tables.stored import YEAR_2000, YEAR_2100

_LOST_DIGITS = r"[+-]?[0-9](\.[0-9]+)?[eE]\+(1[1-9]|[2-9][0-9])"
_UNIX_TIME = r"\s*[0-9]+(\.[0-9]+)?\s*"
_ZONE = r"([Zz]|UTC|GMT|[+-][0-9]{2}(:?[0-9]{2})?)"
# DuckDB's cast accepts more, but takes no notice of what follows: the name of another zone, or PM.
_ISO_8601 = (
    r"\s*[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}([T ]\s*[0-9]{1,2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?\s*"
    + _ZONE
    + r"?)?\s*"
)

NOUNS = {
    "id": "id, since digits of the number are lost",
    "time": "time",
    "flag": "flag (true, false, 1 or 0)",
    "position": "whole number",
    "seconds": "number",
    "grade": "number",
}
"""The words for messages by the kind of a column; other kinds are text, of which every value can be read."""


def identifier(value: str) -> str:
    """Returns the SQL of an id from text; null for one like 1.15292E+18, of which a spreadsheet lost digits."""
    return f"CASE WHEN NOT regexp_full_match({value}, '{_LOST_DIGITS}') THEN {value} END"


def flag(value: str) -> str:
    """Returns the SQL of a BOOLEAN from text: true, false and their short forms; 1 and 0, also as 1.0 and 0.0."""
    number, word = f"TRY_CAST({value} AS DOUBLE)", f"TRY_CAST(trim(CAST({value} AS VARCHAR)) AS BOOLEAN)"
    return f"CASE WHEN {number} IS NULL THEN {word} WHEN {number} = 1 THEN true WHEN {number} = 0 THEN false END"


def whole(value: str) -> str:
    """Returns the SQL of an INTEGER from text: whole numbers, also as 3.0. No fraction, which a cast rounds."""
    number = f"TRY_CAST({value} AS DOUBLE)"
    return f"CASE WHEN {number} = floor({number}) THEN TRY_CAST({number} AS INTEGER) END"


def unix_time(number: str) -> str:
    """Returns the SQL of a TIMESTAMPTZ from a number since 1970 in a unit that its size tells.

    Below 10^11 the unit is seconds, below 10^14 milliseconds, below 10^17 microseconds, and above it nanoseconds. Times
    before 2000 and from 2100 on are null: they come from another unit, from a clock that was not set, or from the
    digits of a date (20240531120000).
    """
    microseconds = (
        f"CAST(CASE WHEN {number} < 1e11 THEN {number} * 1e6 WHEN {number} < 1e14 THEN {number} * 1e3 "
        f"WHEN {number} < 1e17 THEN {number} ELSE {number} / 1e3 END AS BIGINT)"
    )
    plausible = f"{microseconds} >= {YEAR_2000} AND {microseconds} < {YEAR_2100}"
    return f"CASE WHEN {plausible} THEN make_timestamptz({microseconds}) END"


def time(value: str, zone: str = "'UTC'") -> str:
    """Returns the SQL of a TIMESTAMPTZ from text: ISO 8601 with any fraction, or a number as in `unix_time`.

    Slashes between the parts of a date, and UTC or GMT as the zone are taken too.

    Args:
      value: the SQL of the text.
      zone: the SQL of the time zone of times without a zone of their own.
    """
    iso = rf"regexp_replace(regexp_replace({value}, '([0-9]),([0-9])', '\1.\2'), '\s*(UTC|GMT)\s*$', 'Z')"
    iso = rf"regexp_replace({iso}, '\s+([+-][0-9:]+)\s*$', '\1')"
    with_zone = f"regexp_matches({value}, '{_ZONE}\\s*$') AND {value} LIKE '%:%'"
    return (
        f"CASE WHEN regexp_full_match({value}, '{_UNIX_TIME}') THEN {unix_time(f'TRY_CAST({value} AS DOUBLE)')} "
        f"WHEN NOT regexp_full_match({value}, '{_ISO_8601}') THEN NULL "
        f"WHEN {with_zone} THEN TRY_CAST({iso} AS TIMESTAMPTZ) ELSE timezone({zone}, TRY_CAST({iso} AS TIMESTAMP)) END"
    )


def since_2000(time_value: str) -> str:
    """Returns the SQL of a time that is null before 2000, for sources that did not exist then."""
    return f"CASE WHEN {time_value} >= TIMESTAMPTZ '2000-01-01 00:00:00+00' THEN {time_value} END"


def unread(value: str, read: str) -> str:
    """Returns the SQL of the text that is there and that `read` cannot read; null for text that it reads, and blanks.

    Args:
      value: the SQL of the text.
      read: the SQL of the value that was read from it.
    """
    return f"CASE WHEN trim({value}) <> '' AND ({read}) IS NULL THEN {value} END"
