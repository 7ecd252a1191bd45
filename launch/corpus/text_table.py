"""Tables of texts with ids in Parquet: (id, text), the log table documents, or the queries of a label table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops_jax import artifacts
from crops_jax.errors import InputError
from crops_jax.text import DOCUMENT_FIELDS, document_text, normalise_query
from data.labels.table import read_queries

_READ_ROWS = 8192


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """The files of a table of texts, and the ids of the texts, which are unique."""

    path: Path
    """The file or folder of the table itself, even if the caller named the directory of log tables."""
    files: tuple[Path, ...]
    id_column: Literal["id", "doc_id"]
    text_columns: tuple[str, ...]
    ids: Sequence[str]

    def texts(self, first: int, last: int, *, tower: Literal["query", "document"]) -> Iterator[str]:
        """Yields the texts of rows first to last - 1 as an encoder embeds them; they are read one batch at a time.

        A query is normalised (`text.normalise_query`). The fields of a document are joined (`text.document_text`).
        Raises InputError with file and row if a table of (id, text) has a null text.
        """
        start = 0
        for file in self.files:
            opened = pq.ParquetFile(file)
            rows = opened.metadata.num_rows
            if start < last and start + rows > first:
                yield from self._file_texts(opened, file, max(first - start, 0), min(last - start, rows), tower)
            start += rows

    def _file_texts(self, opened: pq.ParquetFile, file: Path, first: int, last: int, tower: str) -> Iterator[str]:
        groups, start = _row_groups(opened, first, last)
        for batch in opened.iter_batches(_READ_ROWS, row_groups=groups, columns=list(self.text_columns)):
            begin, end = max(first - start, 0), min(last - start, len(batch))
            for row, fields in enumerate(batch.slice(begin, max(end - begin, 0)).to_pylist(), start + begin):
                if self.id_column == "id" and fields["text"] is None:
                    raise InputError(f"{file}: row {row}: text is null; give it a text or leave the row out")
                yield normalise_query(fields["text"]) if tower == "query" else document_text(fields)
            start += len(batch)


@dataclass(frozen=True, kw_only=True)
class QueryTable(TextTable):
    """The distinct queries of a label table. The id of a query is the query."""

    def texts(self, first: int, last: int, *, tower: Literal["query", "document"]) -> Iterator[str]:
        """Yields queries first to last - 1, which are stored normalised."""
        yield from self.ids[first:last]


def open_text_table(path: str | Path, *, tower: Literal["query", "document"]) -> TextTable:
    """Opens a Parquet file, a folder of them, the documents of log tables, or the queries of a label table.

    Raises InputError with file, column and row on a missing column, an id that is null or occurs twice, a table without
    rows, a file that is not Parquet, documents for the query tower, and queries for the document tower.
    """
    path = Path(path)
    if _holds_labels(path):
        if tower == "document":
            raise InputError(f"{path}: a label table, of which queries are embedded; --tower query takes it")
        return QueryTable(path=path, files=(), id_column="id", text_columns=("text",), ids=read_queries(path))
    path = _table_path(path)
    files = (path,) if path.is_file() else tuple(sorted(path.rglob("*.parquet")))
    if not files:
        raise InputError(f"{path}: no Parquet files in it; give a table of id and text, or log tables with documents")
    schemas = [_schema(file) for file in files]
    id_column = "id" if "id" in schemas[0].names and "text" in schemas[0].names else "doc_id"
    fields = ("text",) if id_column == "id" else tuple(f for f in DOCUMENT_FIELDS if f in schemas[0].names)
    for file, schema in zip(files, schemas, strict=True):
        _check_columns(file, schema, id_column, fields)
    if id_column == "doc_id" and tower == "query":
        raise InputError(f"{path}: has the columns of documents; --tower query takes a table of id and text")
    return TextTable(path=path, files=files, id_column=id_column, text_columns=fields, ids=_ids(files, id_column))


def _holds_labels(path: Path) -> bool:
    if (path / artifacts.MANIFEST).is_file():
        return artifacts.read_manifest(path)["kind"] == "labels"
    has = {
        name: any((path / entry).exists() for entry in (name, f"{name}.parquet")) for name in ("labels", "documents")
    }
    return has["labels"] and not has["documents"]


def _table_path(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{path}: no such file or directory; give a Parquet file, a folder of them, or log tables")
    for documents in (path / "documents.parquet", path / "documents"):
        if documents.exists():
            return documents
    return path


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{file}: not a Parquet file, or a torn one ({error}); write it again") from error


def _check_columns(file: Path, schema: pa.Schema, id_column: str, fields: Sequence[str]) -> None:
    if id_column not in schema.names or not fields:
        raise InputError(f"{file}: columns {', '.join(schema.names)}; expected id and text, or doc_id and title")
    if id_column == "doc_id" and "title" not in schema.names:
        raise InputError(f"{file}: column title is missing, which documents have; found {', '.join(schema.names)}")
    for column in fields:
        if column not in schema.names:
            raise InputError(f"{file}: column {column} is missing, which other files of the table have")
        if not _is_text(schema.field(column).type) and not pa.types.is_null(schema.field(column).type):
            raise InputError(f"{file}: column {column} must be text, found {schema.field(column).type}")
    kind = schema.field(id_column).type
    if not _is_text(kind) and not pa.types.is_integer(kind):
        raise InputError(f"{file}: column {id_column} must be text, found {kind}")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _ids(files: Sequence[Path], column: str) -> list[str]:
    ids: list[str] = []
    seen: set[str] = set()
    for file in files:
        # The file is not read as a data set, because the name of a folder could then add a column.
        values = pc.cast(pq.ParquetFile(file).read(columns=[column])[column], pa.string()).to_pylist()
        for row, value in enumerate(values):
            if value is None:
                raise InputError(f"{file}: row {row}: {column} is null; give it an id or leave the row out")
            if value in seen:
                raise InputError(f"{file}: row {row}: {column} {value!r} occurs twice; ids must be unique")
            seen.add(value)
            ids.append(value)
    if not ids:
        raise InputError(f"{files[0]}: the table has no rows")
    return ids


def _row_groups(opened: pq.ParquetFile, first: int, last: int) -> tuple[list[int], int]:
    """Returns the row groups that contain rows first to last - 1, and the first row of the first of these groups."""
    groups, begins, start = [], 0, 0
    for group in range(opened.num_row_groups):
        rows = opened.metadata.row_group(group).num_rows
        if start < last and start + rows > first:
            begins = begins if groups else start
            groups.append(group)
        start += rows
    return groups, begins
