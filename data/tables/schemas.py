"""The columns of the log tables and the label table, the types in which files can store them, and their keys."""

from dataclasses import dataclass

import pyarrow as pa

STAGES = ("filtered_before_ranking", "ranked_not_shown", "shown")
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, kw_only=True)
class ColumnKind:
    """The kind of a column: the type that readers get, and the types in which files can store it."""

    arrow: pa.DataType
    sql: str
    stored_as: str
    """The names, for messages, of the types in which a file can store the column."""


_TEXT = ColumnKind(arrow=pa.string(), sql="VARCHAR", stored_as="text (string)")
KINDS = {
    "id": ColumnKind(arrow=pa.string(), sql="VARCHAR", stored_as="text (string), a whole number or a UUID"),
    "query": _TEXT,
    "text": _TEXT,
    "stage": _TEXT,
    "split": _TEXT,
    "time": ColumnKind(
        arrow=pa.timestamp("us", tz="UTC"),
        sql="TIMESTAMPTZ",
        stored_as="a timestamp, a date, a whole number since 1970, or ISO 8601 as text",
    ),
    "position": ColumnKind(arrow=pa.int32(), sql="INTEGER", stored_as="a whole number"),
    "flag": ColumnKind(arrow=pa.bool_(), sql="BOOLEAN", stored_as="boolean, or 0 and 1"),
    "seconds": ColumnKind(arrow=pa.float64(), sql="DOUBLE", stored_as="a number"),
    "grade": ColumnKind(arrow=pa.float64(), sql="DOUBLE", stored_as="a number"),
    "level": ColumnKind(arrow=pa.int8(), sql="TINYINT", stored_as="a whole number"),
    "score": ColumnKind(arrow=pa.float64(), sql="DOUBLE", stored_as="a number"),
    "json": _TEXT,
}


@dataclass(frozen=True)
class Column:
    """A column of a table. Its kind is a key of KINDS."""

    name: str
    kind: str
    required: bool = True

    @property
    def arrow_type(self) -> pa.DataType:
        return KINDS[self.kind].arrow


@dataclass(frozen=True)
class TableSchema:
    """The schema of a table."""

    columns: tuple[Column, ...]
    """The columns in their order."""
    key: tuple[str, ...] = ()
    """The columns of the key, which no two rows share; empty if the table has no key."""
    normalised_query: bool = False
    """Whether readers get the column `query` in its normalised form."""

    @property
    def arrow(self) -> pa.Schema:
        return pa.schema([pa.field(column.name, column.arrow_type) for column in self.columns])

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.required)


def _optional(name: str, kind: str) -> Column:
    return Column(name, kind, required=False)


_DOC_ID = Column("doc_id", "id")
_QUERY = Column("query", "query")
_RECALLED = TableSchema((_QUERY, _DOC_ID), key=("query", "doc_id"), normalised_query=True)

SCHEMAS: dict[str, TableSchema] = {
    "documents": TableSchema(
        (
            _DOC_ID,
            Column("title", "text"),
            _optional("text", "text"),
            _optional("keywords", "text"),
            _optional("cover_text", "text"),
            _optional("published_at", "time"),
        ),
        key=("doc_id",),
    ),
    "searches": TableSchema(
        (
            Column("search_id", "id"),
            Column("user_id", "id"),
            _QUERY,
            Column("time", "time"),
            _optional("group", "text"),
        ),
        key=("search_id",),
    ),
    "candidates": TableSchema(
        (
            Column("search_id", "id"),
            _DOC_ID,
            Column("stage", "stage"),
            _optional("position", "position"),
            _optional("clicked", "flag"),
            _optional("liked", "flag"),
            _optional("watch_seconds", "seconds"),
        ),
        key=("search_id", "doc_id"),
    ),
    "feed_views": TableSchema(
        (
            Column("user_id", "id"),
            _DOC_ID,
            Column("time", "time"),
            _optional("watch_seconds", "seconds"),
            _optional("liked", "flag"),
        )
    ),
    "judgements": TableSchema(
        (_QUERY, _DOC_ID, Column("grade", "grade"), _optional("split", "split")),
        key=("query", "doc_id"),
        normalised_query=True,
    ),
    "knowledge_documents": TableSchema(
        (
            _QUERY,
            _DOC_ID,
            Column("title", "text"),
            Column("text", "text"),
            Column("model", "text"),
            Column("prompt_sha256", "text"),
        ),
        key=("doc_id",),
        normalised_query=True,
    ),
    "test_clicks": _RECALLED,
    "test_reformulations": _RECALLED,
}

LABELS = TableSchema(
    (
        _QUERY,
        _DOC_ID,
        Column("level", "level"),
        Column("source", "id"),
        _optional("score", "score"),
        _optional("evidence", "json"),
    ),
    key=("query", "doc_id"),
    normalised_query=True,
)
"""The label table: LABELS/labels.parquet, or the files of LABELS/labels/."""
