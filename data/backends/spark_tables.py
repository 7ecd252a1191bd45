"""Log tables as views of a Spark session, and the Ibis backend over it."""

import contextlib
import re
import urllib.parse
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import ibis
import ibis.expr.datatypes as dt
import pyarrow as pa

from data.backends.spark_session import open_session
from data.tables import LogTables
from data.tables.files import TableFiles
from data.tables.schemas import KINDS, Column

with warnings.catch_warnings():
    # See data.backends.spark_session: of pandas.
    warnings.simplefilter("ignore", FutureWarning)
    from ibis.backends.pyspark import Backend

    # The first access to the attribute declares the backend's options, which compiling an expression reads.
    assert ibis.pyspark.name == "pyspark"
from ibis.backends.sql.compilers.pyspark import PySparkCompiler
from ibis.formats.pyarrow import PyArrowData

_TYPES = {
    "VARCHAR": "STRING",
    "INTEGER": "INT",
    "BOOLEAN": "BOOLEAN",
    "DOUBLE": "DOUBLE",
    "TINYINT": "TINYINT",
    "TIMESTAMPTZ": "TIMESTAMP",
}
# Columns beside those of a user's file.
_PLACE = ("file of crops_jax", "row of crops_jax")


def connect_spark(logs: LogTables, *, master: str, memory_limit: str | None = None) -> "SparkTables":
    """See data.backends.connection.connect."""
    session = open_session(master, memory_limit=memory_limit)
    connection = cast(SparkTables, SparkTables().connect(session))
    for name in sorted(logs.tables):
        _add_view(session, logs.tables[name], logs.rewrites.get(name))
    return connection


class _Compiler(PySparkCompiler):
    """Ibis's compiler, with literals that mean in Spark what they mean in DuckDB."""

    __slots__ = ()

    def visit_NonNullLiteral(self, op, *, value, dtype):
        if dtype.is_floating():
            # 1e6 alone would be a decimal in Spark, and so would what is computed with it.
            return self.cast(repr(float(value)), dtype)
        if dtype.is_string() and not value.isprintable():
            # sqlglot writes \a for the bell, which Spark reads as an a.
            return self.f.decode(self.f.unhex(value.encode().hex()), "UTF-8")
        return super().visit_NonNullLiteral(op, value=value, dtype=dtype)


class SparkTables(Backend):
    """Ibis's PySpark backend with temporary tables, and with Arrow instead of pandas between Spark and Python.

    pandas would turn whole numbers and flags with nulls among them into floats and objects. Times are of UTC, as in
    DuckDB's views.
    """

    compiler = _Compiler()

    def get_schema(self, table_name: str, **options: Any) -> ibis.Schema:
        schema = super().get_schema(table_name, **options)
        return ibis.schema(
            {
                name: dt.Timestamp(timezone="UTC", scale=6, nullable=kind.nullable) if kind.is_timestamp() else kind
                for name, kind in schema.items()
            }
        )

    def create_table(self, name: str, /, obj: Any = None, *, temp: bool | None = None, **options: Any):
        """A temporary table is a view of what is computed once, at its first use, and kept in memory or on disk."""
        if not temp:
            return super().create_table(name, obj, **options)
        if isinstance(obj, pa.Table):
            frame = self._session.createDataFrame(obj)
        else:
            self._run_pre_execute_hooks(obj)
            frame = self._session.sql(self.compile(obj))
        frame = frame.cache()
        frame.createOrReplaceTempView(name)
        self._cached_dataframes[name] = frame
        return self.table(name)

    def drop_table(self, name: str, /, **options: Any) -> None:
        if name in self._cached_dataframes:
            self._drop_cached_table(name)
        else:
            super().drop_table(name, **options)

    def to_pyarrow(self, expr, /, *, params=None, limit=None, **options: Any):
        table = expr.as_table()
        self._run_pre_execute_hooks(table)
        frame = self._session.sql(self.compile(table, params=params, limit=limit, **options))
        return expr.__pyarrow_result__(PyArrowData.convert_table(frame.toArrow(), table.schema()))

    def stream(self, expr, /) -> Iterator[pa.RecordBatch]:
        """Record batches of a table in its order, a partition in memory at a time; their size is Spark's."""
        self._run_pre_execute_hooks(expr)
        schema = PyArrowData.convert_table(expr.schema().to_pyarrow().empty_table(), expr.schema()).schema
        frame = self._session.sql(self.compile(expr))

        # Defined here so that it travels whole: executors need not have this package.
        def serialised(batches):
            for batch in batches:
                content = batch.schema.serialize().to_pybytes(), batch.serialize().to_pybytes()
                yield type(batch).from_pydict({"schema": [content[0]], "batch": [content[1]]})

        for row in frame.mapInArrow(serialised, "schema binary, batch binary").toLocalIterator():
            batch = pa.ipc.read_record_batch(pa.py_buffer(row.batch), pa.ipc.read_schema(pa.py_buffer(row.schema)))
            yield batch.cast(schema)

    def write_parts(self, expr, folder: Path, /, *, part: str, parts: int, sorted_by: Sequence[str]) -> None:
        """Writes a Parquet file for each number from 0 below `parts` in the column `part`, which is not written."""
        self._run_pre_execute_hooks(expr)
        frame = self._session.sql(self.compile(expr))
        frame = frame.repartitionById(parts, frame[part]).drop(part).sortWithinPartitions(*sorted_by)
        frame.write.option("compression", "zstd").parquet(_location(folder))

    def _register_in_memory_table(self, op) -> None:
        self._session.createDataFrame(op.data.to_pyarrow(op.schema)).createOrReplaceTempView(op.name)

    def _make_memtable_finalizer(self, name: str):
        session = self._session

        def drop() -> None:
            # At the interpreter's end Spark may be gone before the table.
            with contextlib.suppress(Exception):
                session.catalog.dropTempView(name)

        return drop


def _add_view(session, table: TableFiles, rewrites: pa.Table | None) -> None:
    """data.tables.files.add_view in Spark."""
    # Hadoop takes what it reads as patterns.
    files = [re.sub(r"([*?{}\[\],^\\])", r"\\\1", _location(file)) for file in table.files]
    stored = session.read.parquet(*files)
    columns = [column.name for column in table.schema.columns]
    if table.left_out is not None:
        # First of all, for a value that is left out may be one that cannot be cast.
        file, row = _PLACE
        located = stored.selectExpr("*", f"_metadata.file_path AS `{file}`", f"_metadata.row_index AS `{row}`")
        absent = session.createDataFrame(_spark_places(stored, table.left_out))
        stored = located.join(absent.hint("broadcast"), [file, row], "left_anti")
    view = stored.selectExpr(
        *(f"{_sql(column, table.stored.get(column.name))} AS `{column.name}`" for column in table.schema.columns)
    )
    if rewrites is not None:
        forms = session.createDataFrame(rewrites.select(["query", "normalised"]).rename_columns(["query", "form"]))
        view = view.join(forms.hint("broadcast"), "query", "left").selectExpr(
            *("coalesce(form, query) AS query" if name == "query" else f"`{name}`" for name in columns)
        )
    view.createOrReplaceTempView(table.name)


def _spark_places(stored, left_out: pa.Table) -> pa.Table:
    """_PLACE of what is left out, the files named as Spark's _metadata.file_path names them."""
    found = [row.file_path for row in stored.select("_metadata.file_path").distinct().collect()]
    # file:/PATH or file:///PATH, with escapes of some characters.
    uris = {f"/{urllib.parse.unquote(uri.removeprefix('file:')).lstrip('/')}": uri for uri in found}
    files = left_out.column("file").combine_chunks().dictionary_encode()
    named = pa.array([uris[str(Path(file).absolute())] for file in files.dictionary.to_pylist()], pa.string())
    return pa.table([named.take(files.indices), left_out.column("row").cast(pa.int64())], names=list(_PLACE))


def _location(path: Path) -> str:
    """A path on this machine, whatever file system Hadoop is set to; it takes blanks and the like as they are."""
    return f"file://{path.absolute()}"


def _sql(column: Column, stored: pa.DataType | None) -> str:
    """Column.sql in Spark's dialect."""
    target, name = _TYPES[KINDS[column.kind].sql], f"`{column.name}`"
    if stored is None or pa.types.is_null(stored):
        return f"CAST(NULL AS {target})"
    plain = stored.value_type if pa.types.is_dictionary(stored) else stored
    if pa.types.is_timestamp(plain) and plain.unit == "ns":
        # Spark has no nanoseconds; the session reads them as whole numbers, and DuckDB rounds them.
        return f"timestamp_micros(CAST(round({name} / 1000BD) AS BIGINT))"
    if column.kind == "time" and not pa.types.is_timestamp(plain):
        return _time_sql(name, target)
    if column.kind in {"position", "level"} and pa.types.is_floating(plain):
        return f"CASE WHEN {name} = floor({name}) THEN try_cast({name} AS {target}) END"
    return f"try_cast({name} AS {target})"


def _time_sql(name: str, target: str) -> str:
    """ISO 8601 as DuckDB reads it, in whose checks every value was found good: what Spark cannot read is an error.

    Spark knows neither times with a zone and without seconds, nor the hour 24.
    """
    with_seconds = f"regexp_replace(trim({name}), '([T ][0-9]{{2}}:[0-9]{{2}})(?!:)', '$1:00')"
    midnight = f"regexp_replace({with_seconds}, '([T ])24:', '$100:')"
    return (
        f"CASE WHEN {name} RLIKE '[T ]24:' THEN CAST({midnight} AS {target}) + INTERVAL 1 DAY "
        f"ELSE CAST({with_seconds} AS {target}) END"
    )
