"""The scores of the relevance discriminator (theta) that records hold beside the levels of a query's documents."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32

from crops_jax.artifacts.lineage import line, manifest_or_none
from crops_jax.discriminator import Discriminator
from crops_jax.errors import InputError
from data.mining.relevance.theta import open_theta, reads_past, refuse_seen_answers
from data.mining.scores import theta_table
from data.perspectives.log_events import parse_time
from data.records.document_tokens import DOCUMENT_TABLES
from data.records.label_groups import LabelGroups
from data.tables import LogTables


def open_teacher(folder: Path | str, *, labels: Path | str, logs: Path | str) -> Discriminator:
    """Opens the discriminator whose scores records get.

    Raises InputError if it cannot be read, or if it read what is held out: searches at the --until of the labels or
    later, or the test part of the SPLIT that `logs` is. An encoder that learns its scores would learn the answers.
    """
    theta = open_theta(folder)
    refuse_seen_answers(theta, folder, logs, argument="--discriminator")
    for link in line(manifest_or_none(labels), "labels"):
        until = link["arguments"].get("until")
        if until is not None and reads_past(theta, parse_time(until, argument="--until")):
            raise InputError(
                f"--discriminator {folder} read searches up to {theta.fitted['latest_time']}, and --labels {labels} "
                f"were mined from those before {until}; give one that was fitted on what happened before"
            )
    return theta.discriminator


def scores_of_texts(
    tables: Sequence[LogTables], groups: LabelGroups, chosen: Bool[np.ndarray, "rows"], discriminator: Discriminator
) -> Float32[np.ndarray, "rows"]:
    """Returns theta of the rows whose texts are written, and NaN for all other rows.

    Only these rows are scored: a text that no record holds is in no batch, and a query can have many more labels than
    texts. Each document is scored by its whole text, which the tokens of a record can be too few for.

    Args:
      tables: the log tables with the documents. If several have a document, the first one is used.
      groups: the labels by query.
      chosen: a mask of the rows whose texts are written.
      discriminator: theta.
    """
    scores = np.full(len(chosen), np.nan, np.float32)
    queries = pa.array(groups.queries, pa.string())
    for logs in tables:
        connection = logs.connect()
        for name, columns in DOCUMENT_TABLES.items():
            rows = np.flatnonzero(chosen & np.isnan(scores))
            if name not in logs.names or not len(rows):
                continue
            asked = pa.table(
                {
                    "row": rows,
                    "query": queries.take(pa.array(groups.row_queries[rows])),
                    "doc_id": groups.doc_ids.take(pa.array(groups.documents[rows])),
                }
            )
            pairs = connection.create_table(f"asked_of_{name}", asked, temp=True)
            documents = connection.table(name).select(*columns)
            found = theta_table(connection, pairs, discriminator, documents=documents)
            of_rows = pairs.join(found, ["query", "doc_id"]).select("row", "score").to_pyarrow()
            scores[of_rows["row"].to_numpy()] = of_rows["score"].to_numpy()
    return scores
