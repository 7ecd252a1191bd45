"""The layouts of raw files: the columns of each file, and the SQL that reads runs of files with the same columns."""

import csv
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax.errors import InputError, one_line
from data.backends.sql import quoted_files, quoted_name, quoted_text
from data.conversion.json_lines import LINE_BYTES, text_lines

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset

Layout = Literal["csv", "tsv", "jsonl", "parquet", "feather"]

_DELIMITERS = (",", ";", "\t", "|")
_EXACT_DOUBLES = 1 << 53


@dataclass(frozen=True, kw_only=True)
class Part:
    """Consecutive files with the same columns in the same types.

    types: the Arrow type of each column; none for the layouts whose values are text.
    delimiter: what separates the values of csv.
    skip: the number of blank lines before the header of csv.
    """

    files: tuple[Path, ...]
    layout: Layout
    columns: tuple[str, ...]
    types: tuple[pa.DataType, ...] = ()
    delimiter: str = ","
    skip: int = 0

    def found(self, column: str) -> list[str]:
        """Returns the columns of the files that `a|b` means; case counts only in the keys of jsonl.

        Raises:
          InputError: the files have a column more than once.
        """
        if self.layout == "jsonl":
            return [name for name in column.split("|") if name in self.columns]
        found = []
        for name in column.split("|"):
            folded = [other for other in self.columns if other.casefold() == name.casefold()]
            if len(folded) > 1:
                raise InputError(
                    f"{self.files[0]}: column {name} is there more than once if case is ignored "
                    f"({', '.join(folded)}); keep one of them, or rename the others"
                )
            found += folded
        return found

    def distinct_columns(self) -> list[str]:
        """Returns the columns with other names for those that are empty or repeat an earlier one."""
        names: dict[str, str] = {}
        for number, column in enumerate(self.columns):
            free = column if column and column.casefold() not in names else f"column {number} of {len(self.columns)}"
            names[free.casefold()] = free
        return list(names.values())

    def value(self, column: str) -> str:
        """Returns the SQL of a column; a column that was written without any value has the type of none."""
        return "NULL" if pa.types.is_null(self._type(column)) else quoted_name(column)

    def _type(self, column: str) -> pa.DataType:
        return self.types[self.columns.index(column)] if self.types else pa.string()

    def text(self, column: str) -> str:
        """Returns the SQL of a column as text: whole numbers without a fraction, and lists of texts joined by blanks.

        pandas stores whole numbers with gaps as doubles, so 7.0 is the text "7".
        """
        name = quoted_name(column)
        kind = self._type(column)
        if pa.types.is_floating(kind):
            whole = f"{name} = floor({name}) AND abs({name}) <= {_EXACT_DOUBLES}"
            return f"CASE WHEN {whole} THEN CAST(CAST({name} AS BIGINT) AS VARCHAR) ELSE CAST({name} AS VARCHAR) END"
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return f"array_to_string({name}, ' ')"
        return self.value(column)


def parts(files: Sequence[Path], layout: Layout, fields: Sequence[str]) -> list[Part]:
    """Returns the runs of consecutive files with the same columns and types.

    Args:
      files: the files in the order of their rows.
      layout: their layout, but not jsonl, in which every line has keys of its own.
      fields: the columns of tsv, whose files do not name them.

    Raises:
      InputError: a file cannot be read.
    """
    described = [(file, one) for file in files if (one := _described(file, layout, fields)) is not None]
    if files and not described:
        raise InputError(f"{files[0]} is empty; get it again")
    return [
        Part(
            files=tuple(file for file, _ in run),
            layout=layout,
            columns=tuple(columns),
            types=tuple(types),
            delimiter=delimiter,
            skip=skip,
        )
        for (columns, types, delimiter, skip), run in itertools.groupby(described, key=lambda pair: pair[1])
    ]


def _described(
    file: Path, layout: Layout, fields: Sequence[str]
) -> tuple[tuple[str, ...], tuple[pa.DataType, ...], str, int] | None:
    """Returns the columns of a file, their types, the delimiter of its values, and the blank lines at its beginning.

    Returns None for csv without a header, as a day without rows can be.
    """
    try:
        match layout:
            case "parquet":
                schema = pq.read_schema(file)
                return tuple(schema.names), tuple(schema.types), "", 0
            case "feather":
                schema = _feather(file).schema
                return tuple(schema.names), tuple(schema.types), "", 0
            case "csv":
                lines = text_lines(file)
                first = next(lines, None)
                if first is None:
                    return None
                number, header = first
                delimiter = max(_DELIMITERS, key=lambda mark: (mark == "\t" and mark in header, header.count(mark)))
                texts = (
                    text for _, text in itertools.chain([first], lines)
                )  # a name in quotes can go on in the next line
                return tuple(next(csv.reader(texts, delimiter=delimiter))), (), delimiter, number - 1
        return tuple(fields), (), "\t", 0
    except (pa.ArrowException, OSError, ValueError, csv.Error) as error:
        raise InputError(f"{file} is not {layout} or is cut off ({one_line(error)}); get it again") from error


def reader(connection: duckdb.DuckDBPyConnection, name: str, number: int, part: Part) -> str:
    """Returns the SQL that reads a part, but not of jsonl and csv; values of tsv are text."""
    paths = quoted_files(part.files)
    match part.layout:
        case "parquet":
            return f"read_parquet({paths}, hive_partitioning = false)"
        case "feather":
            connection.register(f"files {name} {number}", _feather(part.files))
            return quoted_name(f"files {name} {number}")
    columns = ", ".join(f"{quoted_text(column)}: 'VARCHAR'" for column in part.columns)
    return (
        f"read_csv({paths}, header = false, auto_detect = false, delim = '\t', quote = '', escape = '', "
        f"columns = {{{columns}}}, max_line_size = {LINE_BYTES})"
    )


def _feather(files: Path | Sequence[Path]) -> "Dataset":
    import pyarrow.dataset  # here, because it loads pandas

    return pyarrow.dataset.dataset(files, format="feather")
