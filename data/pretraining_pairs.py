"""Makes pairs of a query and a document from the catalogue alone, for the pre-training of an encoder."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax import artifacts, program
from crops_jax.errors import InputError
from crops_jax.storage import InputPath, OutputPath
from crops_jax.text import DOCUMENT_FIELDS
from data.backends.connection import Connection, arrow_batches
from data.perspectives.catalogue import catalogue_pair
from data.perspectives.log_events import parse_time
from data.tables import SCHEMAS, LogTables, OnBadRows, open_logs
from data.tables.duckdb_session import named_lack_of_room
from data.tables.quarantine import beside

_ROWS = 1 << 16
_GRADE = 1.0
_COLUMNS = {"documents": ("doc_id", "title", "text"), "judgements": ("query", "doc_id", "grade", "split")}


@dataclass(frozen=True, kw_only=True)
class PretrainingPairsArguments:
    """The arguments of data.pretraining_pairs."""

    logs: InputPath
    """The directory of log tables. Only the table documents is read."""
    output: OutputPath
    """The directory to write: log tables with the documents without their titles, and with the pairs as judgements of
    grade 1 and split train."""
    overwrite: bool = False
    """Replace the output if it exists."""
    until: str | None = None
    """Leave out documents that were published at this time or later (ISO 8601; UTC if it has no offset). Documents
    without a time are kept."""
    memory_limit: str | None = None
    """The limit of DuckDB's memory, such as 4GB; more is spilled to disk."""
    on_bad_rows: OnBadRows = "fail"
    """With "quarantine", rows of the logs that break a rule are left out, counted, and written to OUTPUT.quarantine."""


def pretraining_pairs(arguments: PretrainingPairsArguments) -> dict[str, Any]:
    """Makes one pair from each document: its title is the query, and the document without its title is the positive.

    A document with nothing beside its title, or without a title, is divided: one half of its words is the query (the
    inverse cloze task). The words of the query never stand one after the other in the document. The output is a
    directory of log tables, so data.mine --judgements-as-labels --grade-levels 1=4 makes labels of it.
    """
    artifacts.check_output(arguments.output, overwrite=arguments.overwrite, inputs={"logs": arguments.logs})
    logs = open_logs(arguments.logs, on_bad_rows=arguments.on_bad_rows, quarantine=beside(arguments.output))
    with (
        artifacts.output_directory(
            arguments.output,
            overwrite=arguments.overwrite,
            program="data.pretraining_pairs",
            kind="logs",
            arguments=arguments,
            inputs={"logs": arguments.logs},
        ) as out,
        named_lack_of_room(),
    ):
        counts = _write(arguments, logs, out)
    return {"pairs": arguments.output, **counts, **logs.outcome}


def _write(arguments: PretrainingPairsArguments, logs: LogTables, out: Path) -> dict[str, int]:
    connection = logs.connect(memory_limit=arguments.memory_limit)
    documents = _published_before(connection, arguments.until)
    kinds: Counter[str] = Counter()
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(pq.ParquetWriter(out / f"{name}.parquet", _schema(name), compression="zstd"))
            for name in _COLUMNS
        }
        for batch in arrow_batches(connection, documents, rows=_ROWS):
            for name, rows in _rows(batch, kinds).items():
                writers[name].write_table(pa.Table.from_pylist(rows, _schema(name)), row_group_size=_ROWS)
    if not kinds["title"] + kinds["half"]:
        before = "" if arguments.until is None else f" published before {arguments.until}"
        raise InputError(
            f"{logs.path}: no document{before} has two words, so there are no pairs; check the columns title and text "
            "of the table documents, and --until"
        )
    return {
        "documents": logs.num_rows("documents"),
        "pairs_of_titles": kinds["title"],
        "pairs_of_halves": kinds["half"],
        "left_out_with_too_few_words": kinds["none"],
        "left_out_published_later": logs.num_rows("documents") - kinds.total(),
    }


def _published_before(connection: Connection, until: str | None) -> ibis.Table:
    documents = connection.table("documents")
    if until is not None:
        time = parse_time(until, argument="--until")
        documents = documents.filter(documents.published_at.isnull() | (documents.published_at < time))
    return documents.select("doc_id", *DOCUMENT_FIELDS).order_by("doc_id")


def _rows(batch: pa.RecordBatch, kinds: Counter[str]) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of both tables for some documents, and counts the kinds of the pairs."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _COLUMNS}
    for document in batch.to_pylist():
        pair = catalogue_pair(document)
        kinds["none" if pair is None else pair.kind] += 1
        if pair is not None:
            doc_id = document["doc_id"]
            rows["documents"].append({"doc_id": doc_id, "title": "", "text": pair.text})
            rows["judgements"].append({"query": pair.query, "doc_id": doc_id, "grade": _GRADE, "split": "train"})
    return rows


def _schema(name: str) -> pa.Schema:
    return pa.schema([SCHEMAS[name].arrow.field(column) for column in _COLUMNS[name]])


if __name__ == "__main__":
    program.run(
        pretraining_pairs,
        example="python -m data.pretraining_pairs --logs split --until 2024-05-31 --output pairs",
        then=(
            "data.mine --logs {output} --judgements-as-labels --grade-levels 1=4 --output LABELS",
            "data.write_records --labels LABELS --logs {output} --vocabulary-from {logs} --output RECORDS",
        ),
    )
