"""Log tables as views of a Spark session, and the Ibis backend that reads them."""

import contextlib
import dataclasses
import functools
import re
import urllib.parse
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import ibis
import ibis.expr.datatypes as dt
import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax.errors import InputError
from data.backends.spark_errors import is_spark_error, spark_cause
from data.backends.spark_session import open_session
from data.tables import LogTables
from data.tables.files import TableFiles
from data.tables.schemas import KINDS, Column
from data.tables.stored import FileRun, epoch_microseconds, is_list_of_text, is_number, is_text, is_whole_double, plain

with warnings.catch_warnings():
    # The warning is about pandas; see data.backends.spark_session.
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
# The names of added columns, which differ from those of a user's file.
_LOCATION_COLUMNS = ("file of crops_jax", "row of crops_jax")


def connect_spark(logs: LogTables, *, master: str, memory_limit: str | None = None) -> "SparkTables":
    """Returns a Spark backend with the views of log tables; see data.backends.connection.connect."""
    session = open_session(master, memory_limit=memory_limit)
    connection = cast(SparkTables, SparkTables().connect(session))
    for name in sorted(logs.tables):
        _add_view(session, logs.tables[name], logs.rewrites.get(name))
    return connection


class _Compiler(PySparkCompiler):
    """The compiler of Ibis for PySpark, with literals that have the same meaning in Spark as in DuckDB."""

    __slots__ = ()

    def visit_NonNullLiteral(self, op, *, value, dtype):
        if dtype.is_floating():
            # Without the cast, Spark would read 1e6 as a decimal, and results of it would be decimals too.
            return self.cast(repr(float(value)), dtype)
        if dtype.is_string() and not value.isprintable():
            # sqlglot writes \a for the bell, which Spark reads as an a.
            return self.f.decode(self.f.unhex(value.encode().hex()), "UTF-8")
        return super().visit_NonNullLiteral(op, value=value, dtype=dtype)


class SparkTables(Backend):
    """The PySpark backend of Ibis, with temporary tables, and with Arrow instead of pandas between Spark and Python.

    pandas would convert integer columns with nulls to floats and boolean columns with nulls to objects. Times are in
    UTC, as in DuckDB's views.
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
        """Creates a table. A temporary table is computed once, at its first use, and kept in memory or on disk."""
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
        """Yields record batches of a table in its order, with one partition in memory at a time.

        Spark determines the size of the batches.
        """
        self._run_pre_execute_hooks(expr)
        schema = PyArrowData.convert_table(expr.schema().to_pyarrow().empty_table(), expr.schema()).schema
        frame = self._session.sql(self.compile(expr))

        # A nested function is serialised with its code, so executors do not need this package.
        def serialised(batches):
            for batch in batches:
                content = batch.schema.serialize().to_pybytes(), batch.serialize().to_pybytes()
                yield type(batch).from_pydict({"schema": [content[0]], "batch": [content[1]]})

        for row in frame.mapInArrow(serialised, "schema binary, batch binary").toLocalIterator():
            batch = pa.ipc.read_record_batch(pa.py_buffer(row.batch), pa.ipc.read_schema(pa.py_buffer(row.schema)))
            yield batch.cast(schema)

    def write_parts(self, expr, folder: Path, /, *, part: str, parts: int, sorted_by: Sequence[str]) -> None:
        """Writes a Parquet file for each value from 0 to `parts` - 1 of the column `part`, which is not written."""
        self._run_pre_execute_hooks(expr)
        frame = self._session.sql(self.compile(expr))
        frame = frame.repartitionById(parts, frame[part]).drop(part).sortWithinPartitions(*sorted_by)
        frame.write.option("compression", "zstd").parquet(_location(folder))

    def _register_in_memory_table(self, op) -> None:
        self._session.createDataFrame(op.data.to_pyarrow(op.schema)).createOrReplaceTempView(op.name)

    def _make_memtable_finalizer(self, name: str):
        session = self._session

        def drop() -> None:
            # When the interpreter exits, Spark can end before this table is dropped.
            with contextlib.suppress(Exception):
                session.catalog.dropTempView(name)

        return drop

    def _finalize_cached_table(self, name: str) -> None:
        # As for tables in memory: when the interpreter exits, Spark can end first.
        with contextlib.suppress(Exception):
            super()._finalize_cached_table(name)


def _add_view(session, table: TableFiles, rewrites: pa.Table | None) -> None:
    """Adds the view of a table to a Spark session, as data.tables.files.add_view does in DuckDB."""
    columns = [column.name for column in table.schema.columns]
    # The order of rows has no meaning in Spark, so files of the same types need not be consecutive.
    alike: dict[str, list[FileRun]] = {}
    for run in table.runs:
        for physical, files in _by_physical_times(run).items():
            part = dataclasses.replace(run, files=tuple(files))
            alike.setdefault(f"{run.stored} {run.names} {physical}", []).append(part)
    views = [_run_view(session, table, runs) for runs in alike.values()]
    view = functools.reduce(lambda one, other: one.unionAll(other), views)
    if rewrites is not None:
        forms = session.createDataFrame(rewrites.select(["query", "normalised"]).rename_columns(["query", "form"]))
        view = view.join(forms.hint("broadcast"), "query", "left").selectExpr(
            *("coalesce(form, query) AS query" if name == "query" else f"`{name}`" for name in columns)
        )
    view.createOrReplaceTempView(table.name)


def _by_physical_times(run: FileRun) -> dict[tuple[str, ...], list[Path]]:
    """Returns the files of a run by the physical types of their nanoseconds.

    Spark reads INT96, in which it writes timestamps itself, as timestamps, and INT64 of nanoseconds as integers. Arrow
    reads both as nanoseconds.
    """
    columns = {run.name(column) for column, stored in run.stored.items() if _is_nanoseconds(stored)}
    files: dict[tuple[str, ...], list[Path]] = {}
    for file in run.files:
        physical: tuple[str, ...] = ()
        if columns:
            schema = pq.read_metadata(file).schema
            leaves = (schema.column(number) for number in range(len(schema)))
            physical = tuple(sorted(f"{leaf.path} {leaf.physical_type}" for leaf in leaves if leaf.path in columns))
        files.setdefault(physical, []).append(file)
    return files


def _is_nanoseconds(stored: pa.DataType) -> bool:
    kind = plain(stored)
    return pa.types.is_timestamp(kind) and kind.unit == "ns"


def _run_view(session, table: TableFiles, runs: Sequence[FileRun]):
    """Returns the rows of files that store the columns of a table in the same types, as TableFiles.sql does."""
    # Hadoop reads paths as patterns, so special characters are escaped.
    paths = [re.sub(r"([*?{}\[\],^\\])", r"\\\1", _location(file)) for run in runs for file in run.files]
    try:
        stored = session.read.parquet(*paths)
    except Exception as error:
        if not is_spark_error(error):
            raise
        raise InputError(
            f"table {table.name}: Spark cannot read {runs[0].files[0]} ({spark_cause(error)}); store the columns in "
            "types that Spark has (UUIDs as text), or leave --backend out to run on DuckDB"
        ) from error
    if table.left_out is not None:
        # These rows are removed before the casts, because their values can be invalid for a cast.
        file, row = _LOCATION_COLUMNS
        located = stored.selectExpr("*", f"_metadata.file_path AS `{file}`", f"_metadata.row_index AS `{row}`")
        left_out = session.createDataFrame(_spark_locations(stored, table.left_out))
        stored = located.join(left_out.hint("broadcast"), [file, row], "left_anti")
    spark_types = dict(stored.dtypes)
    expressions = []
    for column in table.schema.columns:
        name = runs[0].name(column.name)
        expression = _sql(column, runs[0].stored.get(column.name), name, spark_type=spark_types.get(name))
        expressions.append(f"{expression} AS `{column.name}`")
    return stored.selectExpr(*expressions)


def _spark_locations(stored, left_out: pa.Table) -> pa.Table:
    """Returns _LOCATION_COLUMNS of the rows that are left out; files have the names of Spark's _metadata.file_path."""
    paths = [row.file_path for row in stored.select("_metadata.file_path").distinct().collect()]
    # The form of a path is file:/PATH or file:///PATH, with some characters escaped.
    uris = {f"/{urllib.parse.unquote(uri.removeprefix('file:')).lstrip('/')}": uri for uri in paths}
    files = left_out.column("file").combine_chunks().dictionary_encode()
    # Rows of the files that other types are read from have no URI here, and null equals no path.
    named = pa.array([uris.get(str(Path(file).absolute())) for file in files.dictionary.to_pylist()], pa.string())
    return pa.table([named.take(files.indices), left_out.column("row").cast(pa.int64())], names=list(_LOCATION_COLUMNS))


def _location(path: Path) -> str:
    """Returns the URI of a path on this machine for any default file system of Hadoop; characters are not escaped."""
    return f"file://{path.absolute()}"


def _sql(column: Column, stored: pa.DataType | None, name: str, *, spark_type: str | None) -> str:
    """Returns the expression of data.tables.stored.sql in Spark's dialect.

    Args:
      column, stored, name: as in data.tables.stored.sql.
      spark_type: the type in which Spark reads the column, such as "bigint"; None if the files lack it.
    """
    target, name = _TYPES[KINDS[column.kind].sql], f"`{name}`"
    if stored is None or pa.types.is_null(plain(stored)):
        return f"CAST(NULL AS {target})"
    kind = plain(stored)
    if _is_nanoseconds(kind) and spark_type == "bigint":
        # Spark has no nanoseconds. The session reads them as integers, which are rounded here as DuckDB does. Those of
        # INT96 are timestamps, of which both keep the whole microseconds.
        return f"timestamp_micros(CAST(round({name} / 1000BD) AS BIGINT))"
    if column.kind == "time" and is_text(kind):
        return _time_sql(name, target)
    if column.kind == "time" and is_number(kind):
        number = f"try_cast({name} AS BIGINT)"
        return f"timestamp_micros({epoch_microseconds(number, f'({number} DIV 1000)')})"
    if column.kind in {"position", "level"} and not pa.types.is_integer(kind):
        return f"CASE WHEN {name} = floor({name}) THEN try_cast({name} AS {target}) END"
    if column.kind == "flag" and not pa.types.is_boolean(kind):
        return f"CASE WHEN {name} = 0 THEN false WHEN {name} = 1 THEN true END"
    if target == "STRING" and pa.types.is_floating(kind):
        return f"CASE WHEN {is_whole_double(name)} THEN CAST(CAST({name} AS BIGINT) AS STRING) END"
    if is_list_of_text(kind):
        return f"array_join({name}, ' ')"
    return f"try_cast({name} AS {target})"


def _time_sql(name: str, target: str) -> str:
    """Returns the expression of a time in ISO 8601, with the same result as in DuckDB.

    DuckDB has already checked every value, so a value that Spark cannot read is an error. Spark itself cannot read
    times that have a zone but no seconds, or the hour 24.
    """
    with_seconds = f"regexp_replace(trim({name}), '([T ][0-9]{{2}}:[0-9]{{2}})(?!:)', '$1:00')"
    midnight = f"regexp_replace({with_seconds}, '([T ])24:', '$100:')"
    return (
        f"CASE WHEN {name} RLIKE '[T ]24:' THEN CAST({midnight} AS {target}) + INTERVAL 1 DAY "
        f"ELSE CAST({with_seconds} AS {target}) END"
    )
