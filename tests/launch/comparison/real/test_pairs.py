"""The training pairs as texts."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax import artifacts
from crops_jax.hashing import sha256_hashes
from data.tables import write_table
from launch.comparison.real.pairs import write_pairs
from tests.launch.comparison.real.test_lexical_negatives import write_label_table

QUERIES = [f"query {number}" for number in range(40)]


def test_pairs_are_the_positives_of_the_training_queries(tmp_path):
    logs, records = tmp_path / "logs", tmp_path / "records"
    for folder in (logs, records):
        folder.mkdir()
    documents = {"doc_id": ["a", "b", "empty"], "title": ["Red", "Blue", ""], "text": ["shoe", None, ""]}
    write_table(logs, "documents", pa.table(documents))
    write_table(logs, "judgements", pa.table({"query": ["query 1"], "doc_id": ["a"], "grade": [1.0]}))
    manifest = {"program": "data.write_records", "kind": "records", "inputs": {}, "arguments": {"dev_fraction": 0.25}}
    artifacts.write_manifest(records, artifacts.new_manifest(**manifest))
    rows = [(query, doc_id, level) for query in QUERIES for doc_id, level in (("a", 5), ("b", 4), ("empty", 4))]
    rows += [(query, "unknown", 1) for query in QUERIES]
    labels = write_label_table(tmp_path / "labels", rows)
    number = write_pairs(labels, logs, records, tmp_path / "pairs.parquet")
    found = [(row["query"], row["document"]) for row in pq.read_table(tmp_path / "pairs.parquet").to_pylist()]
    in_training = sha256_hashes(QUERIES) >= np.uint64(2**62)
    training = [query for query, inside in zip(QUERIES, in_training, strict=True) if inside]
    assert 20 < len(training) < 40
    assert sorted(found) == sorted((query, text) for query in training for text in ("Red shoe", "Blue"))
    assert number == len(found)
