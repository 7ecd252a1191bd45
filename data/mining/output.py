"""What data.mine and data.hold_out read, and the directory that they write."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crops_jax.artifacts import output_directory
from data.tables import LogTables, OnBadRows, open_logs
from data.tables.days import DaySpan
from data.tables.duckdb_session import named_lack_of_room
from data.tables.knowledge_documents import open_written_documents
from data.tables.quarantine import beside


def mining_inputs(
    *, logs: str, discriminator: str | None, similarity_encoder: str | None, knowledge_documents: str | None = None
) -> dict[str, str | None]:
    """Paths of what is read, by name of the argument. An encoder that is a hub's name has no path."""
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
    """The log tables, with the written documents of --knowledge-documents in the place of their own.

    Args:
      path: the directory of log tables.
      output: where the program writes; rows that are set aside are written beside it.
      on_bad_rows, days: see data.tables.open_logs.
      knowledge_documents: the directory of the written documents; None leaves the logs' own.
    """
    logs = open_logs(path, on_bad_rows=on_bad_rows, quarantine=beside(output), days=days)
    if knowledge_documents is None:
        return logs
    written = open_written_documents(knowledge_documents, logs=logs)
    return dataclasses.replace(
        logs,
        tables=logs.tables | written.tables,
        rewrites={name: forms for name, forms in logs.rewrites.items() if name not in written.names} | written.rewrites,
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
    """crops_jax.artifacts.output_directory of a program that mines; want of memory or disk is a named failure."""
    with (
        output_directory(
            path, overwrite=overwrite, program=program, kind=kind, arguments=arguments, inputs=inputs, **extra
        ) as out,
        named_lack_of_room(),
    ):
        yield out
