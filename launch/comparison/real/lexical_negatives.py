"""Adds documents of BM25's ranking to a label table as negatives of level 0, so that their texts enter a batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from crops_jax import __version__, artifacts
from crops_jax.artifacts import MANIFEST
from crops_jax.hashing import document_id_words, joined, pair_hashes, sha256_hashes
from crops_jax.labels import Level
from crops_jax.retrieval.bm25 import Bm25
from data.labels.assign_levels import LABEL_SCHEMA
from data.labels.files import write_label_batches
from data.labels.table import open_labels
from data.tables import open_logs
from launch.comparison.real.settings import LEXICAL_RANKS
from launch.corpus.documents import Corpus, read_corpus

_SOURCE = "model_mined"
_PROGRAM = "launch.compare"
_QUERIES = 256
_LEVEL = int(Level.IN_BATCH_NEGATIVE)
_NEGATIVE = {
    "level": _LEVEL,
    "source": _SOURCE,
    "score": None,
    "evidence": f'[{{"source": "{_SOURCE}", "level": {_LEVEL}, "score": null, "via_query": null, "gap_seconds": null, '
    '"supporters": null}]',
}
"""The columns of a negative. Its score is null, because that column holds similarities and BM25 has no upper bound."""


def add_lexical_negatives(labels: Path, logs: Path, output: Path, *, count: int) -> None:
    """Writes the label table OUTPUT: the rows of `labels`, and `count` documents at level 0 for each of its queries.

    They are drawn from ranks 20 to 100 of BM25 (k1 = 1.2, b = 0.75) by a hash of query and document, and none of them
    has a label of the query. A query with fewer such documents gets fewer. Nothing is done if OUTPUT was made from
    equal inputs.

    Args:
      labels: a label table.
      logs: the log tables of its documents.
      output: the directory to write.
      count: the number of documents of each query.
    """
    inputs = {"labels": labels, "logs": logs}
    arguments = {"lexical_negatives": count, "ranks": list(LEXICAL_RANKS)}
    fingerprints = {name: artifacts.fingerprint(path) for name, path in inputs.items()}
    if (output / MANIFEST).exists() and _origin(output) == (__version__, arguments, fingerprints):
        return
    with open_labels(labels) as (connection, _):
        rows = connection.sql(f"SELECT {', '.join(LABEL_SCHEMA.names)} FROM labels").to_arrow_table()
    known: dict[str, set[str]] = {}
    for row in rows.select(["query", "doc_id"]).to_pylist():
        known.setdefault(row["query"], set()).add(row["doc_id"])
    added = list(_negatives(known, read_corpus(open_logs(logs)), count=count))
    table = pa.concat_tables([rows.cast(LABEL_SCHEMA), pa.Table.from_pylist(added, schema=LABEL_SCHEMA)])
    table = table.sort_by([("query", "ascending"), ("doc_id", "ascending")])
    with artifacts.output_directory(
        output, overwrite=True, program=_PROGRAM, kind="labels", arguments=arguments, inputs=inputs
    ) as directory:
        write_label_batches(table.to_batches(), directory)


def _origin(output: Path) -> tuple[str, dict[str, Any], dict[str, str]]:
    manifest = artifacts.read_manifest(output)
    inputs = {name: described["fingerprint"] for name, described in manifest["inputs"].items()}
    return manifest["version"], manifest["arguments"], inputs


def _negatives(known: dict[str, set[str]], corpus: Corpus, *, count: int) -> Iterator[dict[str, Any]]:
    """Yields the rows of the negatives. `known` has the labelled documents of each query."""
    first, last = LEXICAL_RANKS
    index, doc_ids = Bm25(corpus.texts), list(corpus.doc_ids)
    words = joined(document_id_words(doc_ids))
    [key] = sha256_hashes(["lexical negatives"])
    queries = sorted(known)
    for start in range(0, len(queries), _QUERIES):
        asked = queries[start : start + _QUERIES]
        _, ranked = index.search(asked, last, order=corpus.order)
        for query, query_hash, row in zip(asked, sha256_hashes(asked), ranked, strict=True):
            places = [int(place) for place in row[first - 1 :] if place >= 0 and doc_ids[place] not in known[query]]
            draws = pair_hashes(query_hash, words[places], key=key)
            for _, place in sorted(zip(draws.tolist(), places, strict=True))[:count]:
                yield {"query": query, "doc_id": doc_ids[place], **_NEGATIVE}
