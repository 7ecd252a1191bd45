"""Any JSONL, CSV, TSV or Parquet files, with a small TOML file that maps their columns to the log tables.

The mapped tables decide which perspectives the data feeds: searches with candidates feed the search log (every stage
in the data), several searches of one user feed the query level, and feed_views feed the system level. Judgements feed
no perspective, but they become labels with `data.mine --judgements-as-labels`.

    data.convert --source mapping --input exports --mapping shop.toml --output logs

(without --mapping: mapping.toml in the input folder). shop.toml, for exports of documents and a search log:

    [documents]
    files = "products/*.parquet"            # below the input folder; .jsonl, .ndjson, .csv, .tsv (with a header),
                                            # .parquet; all but Parquet also with .gz
    [documents.columns]                     # column of the log table = column of the files
    doc_id = "sku"
    title = "name"
    text = ["short", "long"]                # several: joined by a blank

    [searches]
    files = "searches.csv"
    time_unit = "ms"                        # numbers since 1970: "s", "ms", "us" or "ns"; or
    # time_format = "%d/%m/%Y %H:%M:%S"     # as strptime takes it; without either: ISO 8601, timestamps, or numbers
                                            # since 1970, whose size tells the unit; then none is before 2000
    time_zone = "Asia/Shanghai"             # of times without a zone of their own; default UTC
    [searches.columns]
    search_id = "request"
    user_id = "visitor"
    query = "typed"
    time = "at"
    [searches.constants]
    group = "spring campaign"

    [candidates]
    files = "results.jsonl"
    [candidates.columns]
    search_id = "request"
    doc_id = "sku"
    stage = "state"
    position = "rank"
    clicked = "clicked"
    watch_seconds = "watched_ms"
    [candidates.values.stage]               # value in the files = value in the table; others stay as they are
    exposed = "shown"
    cut = "filtered_before_ranking"
    [candidates.scale]
    watch_seconds = 0.001                   # numbers are multiplied by it

Tables and columns are those of the log tables; in JSON Lines, `a.b` is the key b of the object a. Rows that break a
rule of the log tables, such as an unknown stage, and rows with a time, number or flag that cannot be read, or with an
id like 1.15292E+18, whose digits are lost, are dropped and counted by column and reason. A column of which no value can
be read is refused. Of JSON Lines and CSV, the mapped columns are kept in DuckDB; Parquet files are scanned.
"""

import tomllib
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from crops_jax.errors import InputError
from data.backends.sql import quoted_name, quoted_text
from data.conversion import values
from data.conversion.layouts import Layout
from data.conversion.streamed import RawTable, Streamed
from data.tables import SCHEMAS
from data.tables.schemas import Column

_LAYOUTS: dict[str, Layout] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
_KEYS = {"files", "columns", "constants", "values", "scale", "time_unit", "time_format", "time_zone"}
_PER_SECOND = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}


def convert(folder: Path, mapping: Path | None = None) -> Streamed:
    """Returns the log tables of the files in a folder, as queries over them.

    Raises:
      InputError: the mapping or the data is invalid; it names file and field, or file and column.
    """
    file = mapping or folder / "mapping.toml"
    if not file.is_file():
        raise InputError(f"{file}: no such file; write the mapping there, or give it with --mapping")
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not TOML ({error}); correct it") from error
    if not tables:
        raise InputError(f"{file} maps no table; add [documents], and [searches] with [candidates] or [judgements]")
    raw, queries = {}, {}
    for name, fields in tables.items():
        if name not in SCHEMAS:
            raise InputError(f"{file}: unknown table {name}; known are {', '.join(SCHEMAS)}")
        raw[f"raw {name}"] = _raw_table(file, name, fields)
        queries[name] = _query(file, name, fields)
    return Streamed(folder=folder, raw=raw, queries=queries)


def _raw_table(file: Path, name: str, fields: Any) -> RawTable:
    if not isinstance(fields, dict) or not isinstance(fields.get("files"), str):
        raise InputError(f"{file}: [{name}] has no text `files`; name the files of the table")
    if unknown := set(fields) - _KEYS:
        raise InputError(f"{file}: [{name}] has unknown {', '.join(sorted(unknown))}; known are {', '.join(_KEYS)}")
    for key in ("columns", "constants", "values", "scale"):
        if not isinstance(fields.get(key, {}), dict):
            raise InputError(f"{file}: {name}.{key} is no table; write [{name}.{key}]")
    known = {column.name for column in SCHEMAS[name].columns}
    mapped = set(fields.get("columns", {})) | set(fields.get("constants", {}))
    for key in ("columns", "constants", "values", "scale"):
        if unknown := set(fields.get(key, {})) - known:
            raise InputError(
                f"{file}: {name}.{key} names {', '.join(sorted(unknown))}; the table has {', '.join(sorted(known))}"
            )
    if missing := [column for column in SCHEMAS[name].required if column not in mapped]:
        raise InputError(f"{file}: [{name}] maps no {', '.join(missing)}; add it to {name}.columns or {name}.constants")
    pattern = Path(fields["files"])
    suffix = pattern.with_suffix("").suffix if pattern.suffix == ".gz" else pattern.suffix
    if suffix not in _LAYOUTS or pattern.is_absolute():
        raise InputError(
            f"{file}: {name}.files is {fields['files']!r}; give a pattern below the input folder that ends in "
            f"{', '.join(_LAYOUTS)}"
        )
    columns: dict[str, str] = {}
    for column, sources in fields.get("columns", {}).items():
        for source in _sources(file, f"{name}.columns.{column}", sources):
            columns[source] = "VARCHAR"
    return RawTable(files=(fields["files"],), layout=_LAYOUTS[suffix], columns=columns, feeds=name, mapped_by=file)


def _sources(file: Path, field: str, sources: Any) -> list[str]:
    listed = sources if isinstance(sources, list) else [sources]
    if not listed or not all(isinstance(source, str) and source and "|" not in source for source in listed):
        raise InputError(f"{file}: {field} is {sources!r}; give a column's name, or a list of names")
    return listed


def _query(file: Path, name: str, fields: dict[str, Any]) -> str:
    selected = []
    for column in SCHEMAS[name].columns:
        if column.name in fields.get("columns", {}):
            sources = _sources(file, column.name, fields["columns"][column.name])
            names = [quoted_name(source) for source in sources]
            value = names[0] if len(names) == 1 else f"concat_ws(' ', {', '.join(names)})"
        elif column.name in fields.get("constants", {}):
            value = quoted_text(_constant(file, f"{name}.constants.{column.name}", fields["constants"][column.name]))
        else:
            continue
        replaced = fields.get("values", {}).get(column.name, {})
        if not isinstance(replaced, dict):
            raise InputError(
                f"{file}: {name}.values.{column.name} is {replaced!r}; write [{name}.values.{column.name}]"
            )
        for found, meant in replaced.items():
            if not isinstance(meant, str | int | float):
                raise InputError(f"{file}: {name}.values.{column.name}.{found} is {meant!r}; give a single value")
        if replaced:
            cases = " ".join(
                f"WHEN {quoted_text(found)} THEN {quoted_text(_constant(file, name, meant))}"
                for found, meant in replaced.items()
            )
            value = f"CASE {value} {cases} ELSE {value} END"
        read = _typed(file, name, fields, column, value)
        selected.append(f'{read} AS "{column.name}"')
        if column.kind in values.NOUNS:
            selected.append(f'{values.unread(value, read)} AS "unread {column.name}"')
    return f'SELECT {", ".join(selected)} FROM "raw {name}"'


def _typed(file: Path, name: str, fields: dict[str, Any], column: Column, value: str) -> str:
    if column.kind == "time":
        return _time(file, name, fields, value)
    scale = fields.get("scale", {}).get(column.name)
    if scale is not None:
        if isinstance(scale, bool) or not isinstance(scale, int | float):
            raise InputError(f"{file}: {name}.scale.{column.name} is {scale!r}; give a number")
        value = f"(TRY_CAST({value} AS DOUBLE) * {scale!r}::DOUBLE)"
    match column.kind:
        case "id":
            return values.identifier(f"CAST({value} AS VARCHAR)")
        case "flag":
            return values.flag(value)
        case "position":
            return values.whole(value)
        case "seconds" | "grade":
            return f"TRY_CAST({value} AS DOUBLE)"
    return f"CAST({value} AS VARCHAR)"


def _time(file: Path, name: str, fields: dict[str, Any], value: str) -> str:
    unit, layout, zone = (fields.get(key) for key in ("time_unit", "time_format", "time_zone"))
    if unit is not None and layout is not None:
        raise InputError(f"{file}: [{name}] has time_unit and time_format; give one of them")
    if unit is not None:
        if unit not in _PER_SECOND:
            raise InputError(f"{file}: {name}.time_unit is {unit!r}; known are {', '.join(_PER_SECOND)}")
        return f"make_timestamptz(TRY_CAST(TRY_CAST({value} AS DOUBLE) * {_PER_SECOND[unit]} AS BIGINT))"
    try:
        ZoneInfo(zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        raise InputError(
            f"{file}: {name}.time_zone is {zone!r}, which is no time zone; such as Asia/Shanghai"
        ) from error
    if layout is not None:
        if not isinstance(layout, str):
            raise InputError(f"{file}: {name}.time_format is {layout!r}; give it as strptime takes it")
        parsed = f"try_strptime({value}, {quoted_text(layout)})"
        return (
            f"CAST({parsed} AS TIMESTAMPTZ)" if "%z" in layout else f"timezone({quoted_text(zone or 'UTC')}, {parsed})"
        )
    return values.time(value, quoted_text(zone or "UTC"))


def _constant(file: Path, field: str, value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise InputError(f"{file}: {field} is {value!r}; give text, a number, true or false")
    return str(value)
