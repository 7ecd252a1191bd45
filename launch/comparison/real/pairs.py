"""The pairs of a query and a positive from which sentence-transformers learns: those of the records of nce."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax.artifacts import read_manifest, replaced_file
from crops_jax.hashing import sha256_hashes
from crops_jax.labels import Level
from data.labels.table import read_labels
from data.records.label_groups import dev_threshold
from data.tables import open_logs
from launch.corpus.documents import read_corpus

PAIRS = pa.schema([("query", pa.string()), ("document", pa.string())])


def number_of_pairs(file: Path) -> int:
    """Returns the number of pairs in a file of `write_pairs`."""
    return pq.read_metadata(file).num_rows


def write_pairs(labels: Path, logs: Path, records: Path, file: Path) -> int:
    """Writes the training pairs as texts, and returns their number.

    The queries of the dev split of the records are left out, and so are documents without text. The pairs are in the
    order of the SHA-256 of their queries, so that the order of the label table has no effect.

    Args:
      labels: a label table.
      logs: the log tables that the texts come from.
      records: the records of these labels, whose manifest has the share of the dev split.
      file: the Parquet file to write, with the columns query and document.
    """
    fraction = read_manifest(records)["arguments"]["dev_fraction"]
    corpus = read_corpus(open_logs(logs))
    texts = dict(zip(corpus.doc_ids, corpus.texts, strict=True))
    rows = read_labels(labels).select(["query", "doc_id", "level"]).to_pylist()
    positives = [row for row in rows if row["level"] >= Level.POSITIVE and texts.get(row["doc_id"])]
    hashes = sha256_hashes([row["query"] for row in positives])
    kept = np.flatnonzero(hashes >= np.uint64(dev_threshold(fraction))).tolist()
    kept.sort(key=lambda index: (int(hashes[index]), positives[index]["doc_id"]))
    pairs = {
        "query": [positives[index]["query"] for index in kept],
        "document": [texts[positives[index]["doc_id"]] for index in kept],
    }
    with replaced_file(file) as temporary:
        pq.write_table(pa.table(pairs, schema=PAIRS), temporary, compression="zstd")
    return len(kept)
