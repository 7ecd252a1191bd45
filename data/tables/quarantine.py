"""Quarantine of the rows that break a rule of the log tables: they are set aside and written next to an output.

    OUTPUT.quarantine/candidates.parquet    table, file, row (from 0, within the file), column, reason, value
    OUTPUT.quarantine/manifest.json

The quarantine has each row once, with the first rule that it breaks. If several rows have the same key, the first in
the order of the files is kept. A table is processed after the tables it refers to, so rows that refer to a row that was
set aside are set aside too. Damage to a whole file (it is cut off, has another type, or lacks a column) is not a matter
of single rows and raises InputError.

DuckDB reads no file that has a text that is not UTF-8. The rows of such texts are set aside, and DuckDB reads a copy of
the file with other texts in their place, which is removed when the process ends.
"""

import atexit
import dataclasses
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax import artifacts
from crops_jax.artifacts import in_place
from crops_jax.errors import InputError, NamedFailure, is_full_disk
from crops_jax.program.progress import ProgressLine
from crops_jax.storage.names import shown
from data.backends.sql import quoted_text
from data.tables.checks import (
    WRITTEN_IDS,
    broken_rules,
    check_presence,
    query_rewrites,
    repeated_rows,
    required_tables,
    unknown_rows,
)
from data.tables.duckdb_session import named_lack_of_room
from data.tables.files import TableFiles, add_view, first_invalid_text, invalid_texts, named_read_errors
from data.tables.rules import REFERENCES, Rule

OnBadRows = Literal["fail", "quarantine"]
KIND = "quarantine"
COLUMNS = ("table", "file", "row", "column", "reason", "value")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetAside:
    """The facts about the rows that were set aside that readers of the log tables need."""

    tables: dict[str, TableFiles]
    """The tables by name; their field left_out has the rows that were set aside."""
    rewrites: dict[str, pa.Table]
    """The rewrites of queries, as check_tables returns them."""
    counts: dict[str, dict[str, int]]
    """The number of rows that were set aside: table -> reason -> rows."""


def beside(output: Path | str) -> Path:
    """Returns the directory for the rows that a program which writes `output` sets aside."""
    output = Path(output)
    return output.with_name(f"{output.name}.quarantine")


def set_aside(connection: duckdb.DuckDBPyConnection, directory: Path, tables: dict[str, TableFiles]) -> SetAside:
    """Finds every row that check_tables would refuse, and adds them to the schema `quarantine` of the connection.

    Raises:
      InputError: no row of a required table remains, or a whole file is damaged.
    """
    check_presence(directory, tables)
    connection.execute("CREATE SCHEMA quarantine")
    rewrites: dict[str, pa.Table] = {}
    kept = dict(tables)
    counts: dict[str, dict[str, int]] = {}
    rows = sum(table.rows for table in tables.values())
    with ProgressLine(total=rows, desc="checking log tables", unit="rows", leave=False) as progress:
        for name, table in tables.items():
            with named_read_errors(table):
                table, rewritten = _set_aside_rows(connection, table, tables)
                counted = connection.execute(
                    f"SELECT \"column\" || ': ' || reason AS why, count(*) FROM quarantine.{name} "
                    "GROUP BY why ORDER BY why"
                ).fetchall()
                if counted:
                    counts[name] = dict(counted)
                    locations = connection.sql(f"SELECT file, row FROM quarantine.{name}").to_arrow_table()
                    _check_rows_remain(table, counts[name], required=name in required_tables(tables))
                    locations = locations.set_column(0, "file", locations.column("file").dictionary_encode())
                    kept[name] = dataclasses.replace(table, left_out=locations)
            if rewritten.num_rows:
                rewrites[name] = rewritten
            progress.update(table.rows)
    return SetAside(tables=kept, rewrites=rewrites, counts=counts)


def _check_rows_remain(table: TableFiles, counts: dict[str, int], *, required: bool) -> None:
    if required and sum(counts.values()) == table.rows:
        reasons = "; ".join(f"{reason} ({number} rows)" for reason, number in counts.items())
        raise InputError(
            f"table {table.name}: no row of {', '.join(map(str, table.files[:3]))} can be used: {reasons}; "
            "correct the table"
        )


def _set_aside_rows(
    connection: duckdb.DuckDBPyConnection, table: TableFiles, tables: dict[str, TableFiles]
) -> tuple[TableFiles, pa.Table]:
    """Fills quarantine.NAME, and adds the view NAME of the rows that are kept.

    Returns the table, with copies of the files that DuckDB cannot read, and the rewrites of its queries.
    """
    name = table.name
    connection.execute(
        f'CREATE TABLE quarantine.{name} (file VARCHAR, row BIGINT, "column" VARCHAR, reason VARCHAR, value VARCHAR)'
    )
    try:
        found = broken_rules(connection, table)
    except duckdb.Error as error:
        try:
            table, invalid = _with_valid_texts(table)
        except (pa.ArrowException, OSError) as other:
            if is_full_disk(other):
                raise NamedFailure(f"table {name}: the disk of temporary files is full; free some space") from other
            raise error from other
        if not invalid.num_rows:
            raise
        connection.register("invalid", invalid)
        connection.execute(f"INSERT INTO quarantine.{name} SELECT * FROM invalid")
        connection.unregister("invalid")
        found = broken_rules(connection, table)
    if broken := [rule for rule, _ in found]:
        first = " ".join(f"WHEN {rule.broken} THEN [{_struct_sql(rule)}]" for rule in broken)
        # unnest() is used because WHERE would skip row groups by their statistics, which omit NaN.
        connection.execute(
            f"INSERT INTO quarantine.{name} SELECT file, row, unnest(CASE {first} END, max_depth := 2) "
            f"FROM stored_{name} ANTI JOIN quarantine.{name} USING (file, row)"
        )
    rewrites = query_rewrites(connection, table)
    add_view(connection, table, view=f"located_{name}", rewrites=rewrites, located=True)
    connection.execute(
        f"CREATE VIEW {name} AS SELECT * FROM located_{name} ANTI JOIN quarantine.{name} USING (file, row)"
    )
    for referring, column, owner in REFERENCES:
        if referring == name and owner in tables:
            _insert(
                connection,
                name,
                column,
                f"CASE WHEN found IN (SELECT {column} FROM located_{owner}) THEN 'set aside in {owner}' "
                f"ELSE 'not in {owner}' END",
                unknown_rows(name, column, owner),
            )
    if name == "knowledge_documents":
        _insert(connection, name, "doc_id", "'in documents too'", WRITTEN_IDS)
    if repeated := repeated_rows(connection, table):
        key = " and ".join(table.schema.key)
        _insert(connection, name, key, "'repeats the key of an earlier row'", repeated)
    return table, rewrites


def _with_valid_texts(table: TableFiles) -> tuple[TableFiles, pa.Table]:
    """Copies the files that have texts that are not UTF-8, with other texts in their place.

    Returns the table with the copies, and the rows of these texts as the quarantine has them.
    """
    folder = Path(tempfile.mkdtemp(prefix="crops_jax_texts_"))
    # Connections that read the copies can live as long as the process.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copies: dict[Path, Path] = {}
    rows: dict[tuple[str, int], tuple[str, str]] = {}
    for run in table.runs:
        columns = {run.name(column): column for column in run.stored}
        for file in run.files:
            if not any(first_invalid_text(file, name) for name in columns):
                continue
            copies[file] = folder / f"{len(copies):05d}.parquet"
            for row, column, value in _copy_with_valid_texts(file, copies[file], columns):
                rows.setdefault((str(file), row), (column, value))
    schema = pa.schema({name: pa.int64() if name == "row" else pa.string() for name in COLUMNS[1:]})
    listed = [
        dict(zip(schema.names, (file, row, column, "not UTF-8", value), strict=True))
        for (file, row), (column, value) in rows.items()
    ]
    return dataclasses.replace(table, copies=copies), pa.Table.from_pylist(listed, schema=schema)


def _copy_with_valid_texts(file: Path, copy: Path, columns: Mapping[str, str]) -> list[tuple[int, str, str]]:
    """Returns (row, column, value) of each text of a file that is not UTF-8, the value as Python writes the bytes.

    Args:
      file: a Parquet file.
      copy: the path of the copy, in which replacement characters take the place of what is not UTF-8.
      columns: the columns that are read, by their names in the file.
    """
    found: list[tuple[int, str, str]] = []
    row = 0
    with pq.ParquetFile(file) as opened, pq.ParquetWriter(copy, opened.schema_arrow) as writer:
        for batch in opened.iter_batches():
            for position, name in enumerate(batch.schema.names):
                values = batch.column(position)
                if not (wrong := invalid_texts(values)):
                    continue
                if name in columns:
                    found += [(row + index, columns[name], repr(value[:80])) for index, value in wrong.items()]
                stored = values.cast(pa.large_binary()).to_pylist()
                texts = [None if value is None else value.decode(errors="replace") for value in stored]
                batch = batch.set_column(position, batch.schema.field(position), pa.array(texts, values.type))
            writer.write_batch(batch)
            row += len(batch)
    return found


def _struct_sql(rule: Rule) -> str:
    reason = quoted_text(rule.problem.format(found="value"))
    return f"{{'column': '{rule.column}', 'reason': {reason}, 'value': CAST({rule.found} AS VARCHAR)}}"


def _insert(connection: duckdb.DuckDBPyConnection, name: str, column: str, reason: str, rows: str) -> None:
    connection.execute(f"INSERT INTO quarantine.{name} SELECT file, row, '{column}', {reason}, found FROM ({rows})")


def write_quarantine(
    connection: duckdb.DuckDBPyConnection, counts: dict[str, dict[str, int]], *, logs: Path, path: Path
) -> None:
    """Writes the rows that were set aside to `path`.

    An earlier quarantine is replaced, or removed if `counts` is empty.

    Args:
      connection: the connection that set_aside filled.
      counts: the numbers of rows that set_aside returned.
      logs: the directory of the log tables, for the manifest.
      path: the directory to write.

    Raises:
      InputError: `path` holds something other than a quarantine.
    """
    if path.is_dir() and any(path.iterdir()) and artifacts.read_manifest(path)["kind"] != KIND:
        raise InputError(
            f"{path} is the directory for rows that are set aside, but holds something else; choose another --output"
        )
    if not counts:
        if path.is_dir():
            in_place.remove(path)
        return
    with (
        artifacts.output_directory(
            path,
            overwrite=True,
            program="data.tables",
            kind=KIND,
            arguments={},
            inputs={"logs": logs},
            quarantined=counts,
        ) as out,
        named_lack_of_room(),
    ):
        for name in counts:
            file, target = _file_as_given(connection, name), quoted_text(out / f"{name}.parquet")
            connection.execute(
                f'COPY (SELECT \'{name}\' AS "table", {file} AS file, row, "column", reason, value '
                f"FROM quarantine.{name} ORDER BY file, row) TO {target} (FORMAT parquet, COMPRESSION zstd)"
            )


def _file_as_given(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    """Returns SQL for the file of a row, which is the path that the user gave where `file` is a copy of it."""
    files = [file for (file,) in connection.execute(f"SELECT DISTINCT file FROM quarantine.{name}").fetchall()]
    given = {file: shown(file) for file in files if shown(file) != file}
    cases = "".join(f" WHEN {quoted_text(file)} THEN {quoted_text(path)}" for file, path in given.items())
    return f"CASE file{cases} ELSE file END" if given else "file"
