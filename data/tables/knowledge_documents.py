"""Documents that a language model wrote, in a directory of their own: what data.synthesize leaves."""

from collections.abc import Sequence
from pathlib import Path

from crops_jax import artifacts
from crops_jax.artifacts.lineage import manifest_or_none, read_from
from crops_jax.errors import InputError
from data.tables.checks import check_table
from data.tables.duckdb_session import connect_duckdb
from data.tables.files import add_view, find_table, named_read_errors
from data.tables.log_tables import LogTables
from data.tables.schemas import SCHEMAS

TABLE = "knowledge_documents"


def open_written_documents(path: Path | str, *, logs: LogTables) -> LogTables:
    """The table knowledge_documents of a directory, checked, as log tables that hold nothing else.

    Args:
      path: DOCS, or any directory with such a table.
      logs: whose documents these must not be.

    Raises:
      InputError: no such table, a table that breaks a rule (see data.tables.open_logs), or an id that a document of
        `logs` has.
    """
    path = Path(path)
    table = find_table(path, TABLE, SCHEMAS[TABLE])
    if table is None:
        raise InputError(
            f"--knowledge-documents {path}: neither {TABLE}.parquet nor a folder {TABLE} in it; give a directory that "
            "data.synthesize wrote"
        )
    with connect_duckdb() as connection:
        rewrites = check_table(connection, table)
        add_view(connection, logs.tables["documents"])
        with named_read_errors(table):
            query = f"SELECT doc_id FROM {TABLE} SEMI JOIN documents USING (doc_id) ORDER BY doc_id LIMIT 1"
            both = connection.execute(query).fetchall()
    if both:
        raise InputError(
            f"--knowledge-documents {path}: {both[0][0]!r} is the id of a document of {logs.path} too; give it "
            "another id"
        )
    return LogTables(path=path, tables={TABLE: table}, rewrites={TABLE: rewrites} if rewrites.num_rows else {})


def check_same_documents(labels: Path | str, documents: Path | str | None) -> None:
    """Raises InputError when labels were mined with other written documents than the directory `documents`."""
    if documents is None:
        return
    mined_with = read_from(manifest_or_none(labels), TABLE)
    if mined_with and mined_with[0] != artifacts.fingerprint(documents):
        raise InputError(
            f"--labels {labels} were mined with other written documents than --knowledge-documents {documents} holds "
            "now; give those that data.mine read, or mine again"
        )


def missing_documents(
    *, labels: str, logs: str, knowledge_documents: str | None, number: int, examples: Sequence[str]
) -> InputError:
    """Returns the error of data.write_records for labels that name written documents that no table holds."""
    named, where = ", ".join(map(repr, examples)), f"not in --logs {logs}"
    if knowledge_documents:
        where = f"neither in --logs {logs} nor in --knowledge-documents {knowledge_documents}"
    return InputError(
        f"--labels {labels}: {number} documents that a language model wrote ({named}) are {where}; give the "
        "directory that data.mine read them from with --knowledge-documents"
    )
