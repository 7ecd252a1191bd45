"""What data.mine and data.hold_out read, and the directory that they write."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crops_jax.artifacts import output_directory
from data.tables import LogTables, open_logs
from data.tables.days import DaySpan
from data.tables.duckdb_session import named_lack_of_room
from data.tables.knowledge_documents import open_written_documents
from data.tables.quarantine import beside


def mining_inputs(arguments: Any) -> dict[str, str | None]:
    """Paths of what is read, by name of the argument. An encoder that is a hub's name has no path."""
    encoder = arguments.similarity_encoder
    inputs = {
        "logs": arguments.logs,
        "discriminator": arguments.discriminator,
        "similarity_encoder": encoder if encoder and Path(encoder).exists() else None,
    }
    if (written := getattr(arguments, "knowledge_documents", None)) is not None:
        inputs["knowledge_documents"] = written
    return inputs


def open_mined_logs(arguments: Any, *, days: DaySpan | None = None) -> LogTables:
    """The log tables, with the written documents of --knowledge-documents in the place of their own.

    Args:
      arguments: logs, output, on_bad_rows and, of data.mine, knowledge_documents.
      days: see data.tables.open_logs.
    """
    quarantine = beside(arguments.output)
    logs = open_logs(arguments.logs, on_bad_rows=arguments.on_bad_rows, quarantine=quarantine, days=days)
    place = getattr(arguments, "knowledge_documents", None)
    if place is None:
        return logs
    written = open_written_documents(place, logs=logs)
    return dataclasses.replace(
        logs,
        tables=logs.tables | written.tables,
        rewrites={name: forms for name, forms in logs.rewrites.items() if name not in written.names} | written.rewrites,
    )


@contextlib.contextmanager
def mining_output(
    arguments: Any,
    path: str,
    *,
    program: str,
    kind: str,
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
