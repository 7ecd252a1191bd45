"""Documents that a language model wrote, in a separate directory, which data.synthesize writes."""

from collections.abc import Sequence
from pathlib import Path

from crops_jax import artifacts
from crops_jax.artifacts.lineage import manifest_or_none, read_from
from crops_jax.errors import InputError
from data.tables.checks import check_table
from data.tables.duckdb_session import connect_duckdb
from data.tables.files import add_view, named_read_errors
from data.tables.footers import find_table
from data.tables.log_tables import LogTables
from data.tables.schemas import SCHEMAS

TABLE = "knowledge_documents"


def open_written_documents(path: Path | str, *, logs: LogTables) -> LogTables:
    """Checks the table knowledge_documents of a directory and returns it as log tables that hold no other table.

    Args:
      path: the directory that data.synthesize wrote, or any directory with such a table.
      logs: the log tables, whose documents must have other ids.

    Raises:
      InputError: the table does not exist, breaks a rule (see data.tables.open_logs), or has the id of a document of
        `logs`.
    """
    path = Path(path)
    table = find_table(path, TABLE, SCHEMAS[TABLE])
    if table is None:
        raise InputError(
            f"--knowledge-documents {path}: neither {TABLE}.parquet nor a folder {TABLE} is in it; give a directory "
            "that data.synthesize wrote"
        )
    with connect_duckdb() as connection:
        rewrites = check_table(connection, table)
        add_view(connection, logs.tables["documents"])
        with named_read_errors(table):
            query = f"SELECT doc_id FROM {TABLE} SEMI JOIN documents USING (doc_id) ORDER BY doc_id LIMIT 1"
            shared = connection.execute(query).fetchall()
    if shared:
        raise InputError(
            f"--knowledge-documents {path}: {shared[0][0]!r} is the id of a document of {logs.path} too; give it "
            "another id"
        )
    return LogTables(path=path, tables={TABLE: table}, rewrites={TABLE: rewrites} if rewrites.num_rows else {})


def check_same_documents(labels: Path | str, documents: Path | str | None) -> None:
    """Raises InputError if labels were mined with other written documents than the directory `documents`."""
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
    """Returns the error of data.write_records for labels with documents of a language model that no table holds."""
    ids, missing_from = ", ".join(map(repr, examples)), f"not in --logs {logs}"
    if knowledge_documents:
        missing_from = f"neither in --logs {logs} nor in --knowledge-documents {knowledge_documents}"
    return InputError(
        f"--labels {labels}: {number} documents that a language model wrote ({ids}) are {missing_from}; give the "
        "directory that data.mine read them from with --knowledge-documents"
    )
