"""The search for the files of a log table, and the check that their columns are those of its schema."""

import difflib
import itertools
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax.errors import InputError, InputErrors, one_line
from data.tables.days import DaySpan, of_days
from data.tables.files import TableFiles
from data.tables.schemas import KINDS, SCHEMAS, TableSchema
from data.tables.stored import FileRun, accepts, is_text, plain


def find_tables(directory: Path, *, days: DaySpan | None = None) -> tuple[dict[str, TableFiles], dict[str, list[str]]]:
    """Returns the log tables in a directory by their names, and the problems of the tables that cannot be read.

    Raises InputError if the directory does not exist.
    """
    tables: dict[str, TableFiles] = {}
    problems: dict[str, list[str]] = {}
    for name, schema in SCHEMAS.items():
        try:
            table = find_table(directory, name, schema, days=days)
        except InputErrors as errors:
            problems[name] = errors.problems
        else:
            if table is not None:
                tables[name] = table
    return tables, problems


def find_table(directory: Path, name: str, schema: TableSchema, *, days: DaySpan | None = None) -> TableFiles | None:
    """Returns the file DIRECTORY/NAME.parquet or the files of the folder DIRECTORY/NAME.

    The footers of the files are read, and their columns are checked. With `days`, folders day=YYYY-MM-DD of
    other days are not opened; see data.tables.days.

    Returns:
      the files of the table, or None if neither the file nor the folder exists.

    Raises:
      InputErrors: files are not Parquet files or are cut off, or columns are missing or have a wrong type.
      InputError: the directory does not exist.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; give the directory that holds the tables")
    try:
        files = _files(directory, name, days)
    except InputError as error:
        raise InputErrors([str(error)]) from error
    return _read_footers(name, schema, files) if files else None


def _files(directory: Path, name: str, days: DaySpan | None) -> list[Path]:
    paths = [path for path in (directory / f"{name}.parquet", directory / name) if path.exists()]
    if not paths:
        return []
    if len(paths) > 1:
        raise InputError(f"table {name}: both {paths[0]} and {paths[1]} exist; keep one of them")
    (path,) = paths
    if path.is_file():
        if path.suffix != ".parquet":
            raise InputError(f"table {name}: {path} is a file; name it {name}.parquet, or make a folder of files")
        return [path]
    # Spark and file systems write files of their own, whose names begin with a dot or an underscore.
    files = sorted(
        (
            file
            for file in path.rglob("*")
            if file.is_file() and not any(part[0] in "._" for part in file.relative_to(path).parts)
        ),
        key=str,  # DuckDB has the same order, so "an earlier row" means the same in both
    )
    for file in files:
        if file.suffix != ".parquet":
            raise InputError(f"table {name}: {file} does not end in .parquet; rename it, or move it out of the folder")
    if not files:
        raise InputError(f"table {name}: the folder {path} holds no Parquet file; fill it or remove it")
    return files if days is None else of_days(name, path, files, days)


def _read_footers(name: str, table_schema: TableSchema, files: list[Path]) -> TableFiles:
    found: list[tuple[Path, int, dict[str, pa.DataType], dict[str, str]]] = []
    problems: dict[str, list[str]] = {}
    for file in files:
        try:
            schema, rows = _read_footer(name, file)
            # A writer may know no columns of a day without rows.
            stored, names = ({}, {}) if not rows and len(files) > 1 else _stored_types(name, table_schema, file, schema)
        except InputErrors as errors:
            for problem in errors.problems:
                problems.setdefault(problem.replace(str(file), ""), []).append(problem)
        else:
            found.append((file, rows, stored, names))
    if problems:
        raise InputErrors([_with_others(alike) for alike in problems.values()])
    filled = [entry for entry in found if entry[1]] or found[:1]
    runs = tuple(
        FileRun(files=tuple(entry[0] for entry in run), stored=dict(stored), names=dict(names))
        for (stored, names), run in itertools.groupby(
            filled, lambda entry: (_signature(entry[2]), tuple(entry[3].items()))
        )
    )
    rows = sum(entry[1] for entry in found)
    return TableFiles(name=name, schema=table_schema, files=tuple(files), runs=runs, rows=rows)


def _with_others(problems: list[str]) -> str:
    """Returns the first of the problems that files have in common, with the number of the others."""
    return problems[0] + (f" ({len(problems) - 1} further files alike)" if len(problems) > 1 else "")


def _signature(stored: dict[str, pa.DataType]) -> tuple[tuple[str, pa.DataType], ...]:
    """Returns the types of a file's columns; all encodings of text are one type."""
    return tuple((column, pa.string() if is_text(plain(kind)) else kind) for column, kind in stored.items())


def _read_footer(name: str, file: Path) -> tuple[pa.Schema, int]:
    try:
        with pq.ParquetFile(file) as opened:
            return opened.schema_arrow, opened.metadata.num_rows
    except PermissionError as error:  # Arrow's message does not name the file
        raise InputErrors([f"table {name}: {file} must not be read by this user; check its permissions"]) from error
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        raise InputErrors(
            [f"table {name}: {file} is not a Parquet file or is cut off ({one_line(error)}); write or copy it again"]
        ) from error


def _stored_types(
    name: str, table_schema: TableSchema, file: Path, schema: pa.Schema
) -> tuple[dict[str, pa.DataType], dict[str, str]]:
    """Returns the types of the schema columns in a file, and the names there of those that differ in case."""
    stored, names, problems = {}, {}, []
    for column in table_schema.columns:
        alike = [other for other in schema.names if other.casefold() == column.name]
        if len(alike) > 1:
            problems.append(
                f"table {name}, column {column.name}: {file} holds it more than once if case is ignored; "
                "keep one of them"
            )
        elif not alike:
            if column.required:
                problems.append(_missing_column(name, table_schema, column.name, file, schema.names))
        elif not accepts(column, kind := schema.field(alike[0]).type):
            problems.append(
                f"table {name}, column {column.name}: {file} holds it as {kind}; it must be "
                f"{KINDS[column.kind].stored_as}; cast it and write the table again"
            )
        else:
            stored[column.name] = kind
            if alike[0] != column.name:
                names[column.name] = alike[0]
    if problems:
        raise InputErrors(problems)
    return stored, names


def _missing_column(table: str, schema: TableSchema, column: str, file: Path, present: list[str]) -> str:
    known = {known.name for known in schema.columns}
    unknown = [other for other in present if other.casefold() not in known]
    close = difflib.get_close_matches(column, unknown, n=1) or [
        other for other in unknown if _letters(other) == _letters(column)
    ]
    hint = f"rename {close[0]}" if close else "add it"
    return (
        f"table {table}, column {column}: missing from {file}, which has {', '.join(present) or 'no columns'}; "
        f"required are {', '.join(schema.required)}; {hint}"
    )


def _letters(name: str) -> str:
    """Returns a column's name without case and separators, so that docId and doc_id are equal."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())
