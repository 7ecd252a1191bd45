"""The inputs that data.mine and data.hold_out read, and the directory that they write."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crops_jax.artifacts import output_directory
from crops_jax.errors import InputError
from data.tables import LogTables, OnBadRows, open_logs
from data.tables.days import DaySpan
from data.tables.duckdb_session import named_lack_of_room
from data.tables.knowledge_documents import open_written_documents
from data.tables.quarantine import beside


def mining_inputs(
    *, logs: str, discriminator: str | None, similarity_encoder: str | None, knowledge_documents: str | None = None
) -> dict[str, str | None]:
    """Returns the paths of the inputs by the name of the argument; None for an encoder that is a name on a hub."""
    inputs = {
        "logs": logs,
        "discriminator": discriminator,
        "similarity_encoder": similarity_encoder if similarity_encoder and Path(similarity_encoder).exists() else None,
    }
    if knowledge_documents is not None:
        inputs["knowledge_documents"] = knowledge_documents
    return inputs


def open_mined_logs(
    path: str,
    *,
    output: str,
    on_bad_rows: OnBadRows,
    knowledge_documents: str | None = None,
    days: DaySpan | None = None,
) -> LogTables:
    """Opens the log tables; the written documents of --knowledge-documents replace the table in the logs.

    Args:
      path: the directory of log tables.
      output: the directory that the program writes; quarantined rows are written beside it.
      on_bad_rows, days: see data.tables.open_logs.
      knowledge_documents: the directory of the written documents; None keeps the table in the logs.

    Raises:
      InputError: a check of the tables fails, or no judgement names a document of the table documents.
    """
    logs = open_logs(path, on_bad_rows=on_bad_rows, quarantine=beside(output), days=days)
    check_judged_documents(logs)
    if knowledge_documents is None:
        return logs
    written = open_written_documents(knowledge_documents, logs=logs)
    return dataclasses.replace(
        logs,
        tables=logs.tables | written.tables,
        rewrites={name: forms for name, forms in logs.rewrites.items() if name not in written.names} | written.rewrites,
    )


def check_judged_documents(logs: LogTables, *, split: str | None = None) -> None:
    """Raises InputError if the logs have judgements, and none of them names a document of the table documents.

    Args:
      logs: the log tables.
      split: the split whose judgements are checked, with which those without a split count; None for all judgements.
    """
    if not {"judgements", "documents"} <= logs.names:
        return
    connection = logs.connect()
    judgements, documents = connection.table("judgements"), connection.table("documents")
    if split is not None:
        judgements = judgements.filter(judgements.split.fill_null(split) == split)
    if len(judgements.limit(1).to_pyarrow()) and not len(
        judgements.semi_join(documents, "doc_id").limit(1).to_pyarrow()
    ):
        number = judgements.count().to_pyarrow().as_py()
        judged, known = (
            ", ".join(
                map(repr, table.select("doc_id").distinct().order_by("doc_id").limit(2).to_pyarrow()[0].to_pylist())
            )
            for table in (judgements, documents)
        )
        part = "its" if split is None else f"its split {split}:"
        raise InputError(
            f"table judgements of {logs.path}: none of {part} {number} rows names a document of the table documents; "
            f"doc_id is {judged}, and documents have {known}; write the ids of the documents into the judgements, add "
            "the documents, or remove the table"
        )


@contextlib.contextmanager
def mining_output(
    path: str,
    *,
    program: str,
    kind: str,
    arguments: Mapping[str, Any],
    inputs: Mapping[str, str | None],
    overwrite: bool,
    **extra: Any,
) -> Iterator[Path]:
    """Opens crops_jax.artifacts.output_directory; a lack of memory or disk becomes a named failure."""
    with (
        output_directory(
            path, overwrite=overwrite, program=program, kind=kind, arguments=arguments, inputs=inputs, **extra
        ) as out,
        named_lack_of_room(),
    ):
        yield out
