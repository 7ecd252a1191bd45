"""The documents of log tables and their vectors, for evaluation and search."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from crops_jax import artifacts
from crops_jax.artifacts.lineage import input_fingerprint
from crops_jax.embeddings import Embeddings, open_embeddings
from crops_jax.errors import InputError
from crops_jax.text import DOCUMENT_FIELDS, document_text
from data.tables import LogTables


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The documents in the order of their table."""

    doc_ids: Sequence[str]
    titles: Sequence[str]
    texts: Sequence[str]
    """The texts that the encoder embeds."""

    @property
    def order(self) -> Int32[np.ndarray, "documents"]:
        """The position of each document in the order of ids. It breaks ties."""
        positions = np.empty(len(self.doc_ids), np.int32)
        positions[np.argsort(np.asarray(self.doc_ids, dtype=np.str_), kind="stable")] = np.arange(len(self.doc_ids))
        return positions


def read_corpus(logs: LogTables) -> Corpus:
    """Returns the ids, titles and encoder texts of the table documents."""
    rows = logs.read("documents", ["doc_id", *DOCUMENT_FIELDS]).to_pylist()
    return Corpus(
        doc_ids=[row["doc_id"] for row in rows],
        titles=[row["title"] for row in rows],
        texts=[document_text(row) for row in rows],
    )


def document_vectors(
    encoder: Any, corpus: Corpus, *, embeddings: str, logs: LogTables, run: str, dim: int | None = None
) -> Embeddings:
    """Returns the vectors of a corpus in its order, mapped from `embeddings` if it is not empty, or else computed.

    Args:
      encoder: a crops_jax.embeddings.encoder.Encoder.
      corpus: the documents.
      embeddings: a directory that launch.embed wrote, or "" to compute the vectors.
      logs: the log tables of the corpus.
      run: the name of the encoder in messages.
      dim: the number of leading components of a vector; None means that of `embeddings`, or all.

    Raises:
      InputError: the embeddings belong to another encoder, tower, corpus, text or dimension.
    """
    from crops_jax.retrieval.mapped import take_rows

    ids = list(corpus.doc_ids)
    if not embeddings:
        return Embeddings(ids, (encoder.encode(corpus.texts, tower="document", dim=dim, progress=True),))
    manifest = artifacts.read_manifest(embeddings)
    stored = open_embeddings(embeddings)
    if manifest["arguments"].get("tower") != "document":
        raise InputError(f"{embeddings}: vectors of the {manifest['arguments'].get('tower')} tower; embed documents")
    if manifest.get("encoder") != encoder.fingerprint:
        raise InputError(f"{embeddings}: vectors of another encoder than {run} is now; embed again with launch.embed")
    texts = input_fingerprint(manifest, "texts")
    if texts not in _fingerprints(logs):
        raise InputError(f"{embeddings}: vectors of other texts than the documents of {logs.path}; embed these")
    if dim not in (None, stored.dim):
        raise InputError(
            f"{embeddings}: vectors of {stored.dim} components, and --dim is {dim}; give --dim {stored.dim}"
        )
    if stored.ids == ids:
        return stored
    row_of = {doc_id: row for row, doc_id in enumerate(stored.ids)}
    missing = [doc_id for doc_id in corpus.doc_ids if doc_id not in row_of]
    if missing or len(stored.ids) != len(corpus.doc_ids):
        raise InputError(
            f"{embeddings}: {len(stored.ids)} vectors for the {len(corpus.doc_ids)} documents of {logs.path}"
            + (f", none for {missing[0]!r}" if missing else "")
            + "; embed again with launch.embed"
        )
    rows = take_rows(stored.shards, np.asarray([row_of[doc_id] for doc_id in ids]))
    return Embeddings(ids, (rows,), stored.dtype)


def _fingerprints(logs: LogTables) -> set[str]:
    table = logs.path / "documents.parquet"
    return {
        artifacts.fingerprint(logs.path),
        artifacts.fingerprint(table if table.exists() else Path(table.parent, "documents")),
    }
