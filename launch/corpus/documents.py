"""The documents of log tables with their vectors, as evaluation and search need them."""

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
from crops_jax.retrieval.mapped import take_rows
from crops_jax.text import DOCUMENT_FIELDS, document_text
from data.tables import LogTables


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents in the order of their table."""

    doc_ids: Sequence[str]
    titles: Sequence[str]
    texts: Sequence[str]
    """As the encoder takes them."""

    @property
    def order(self) -> Int32[np.ndarray, "documents"]:
        """The place of each document among equals: that of its id, so that the table's order decides nothing."""
        place = np.empty(len(self.doc_ids), np.int32)
        place[np.argsort(np.asarray(self.doc_ids, dtype=np.str_), kind="stable")] = np.arange(len(self.doc_ids))
        return place


def read_corpus(logs: LogTables) -> Corpus:
    """Ids, titles and encoder texts of the table documents."""
    rows = logs.read("documents", ["doc_id", *DOCUMENT_FIELDS]).to_pylist()
    return Corpus(
        doc_ids=[row["doc_id"] for row in rows],
        titles=[row["title"] for row in rows],
        texts=[document_text(row) for row in rows],
    )


def document_vectors(
    encoder: Any, corpus: Corpus, *, embeddings: str, logs: LogTables, run: str, dim: int | None = None
) -> Embeddings:
    """The vectors of a corpus in its order: mapped from EMBEDDINGS where it is named, computed otherwise.

    Args:
      encoder: a crops_jax.embeddings.encoder.Encoder.
      corpus: the documents.
      embeddings: a directory of launch.embed; empty: encode now.
      logs: the tables of the corpus.
      run: for messages.
      dim: leading components of a vector; None: those of EMBEDDINGS, or all.

    Raises:
      InputError: the embeddings are of another encoder, tower, corpus, text or dimension.
    """
    ids = list(corpus.doc_ids)
    if not embeddings:
        return Embeddings(ids, (encoder.encode(corpus.texts, tower="document", dim=dim, progress=True),))
    manifest = artifacts.read_manifest(embeddings)
    found = open_embeddings(embeddings)
    if manifest["arguments"].get("tower") != "document":
        raise InputError(f"{embeddings}: vectors of the {manifest['arguments'].get('tower')} tower; embed documents")
    if manifest.get("encoder") != encoder.fingerprint:
        raise InputError(f"{embeddings}: vectors of another encoder than {run} is now; embed again with launch.embed")
    texts = input_fingerprint(manifest, "texts")
    if texts not in _fingerprints(logs):
        raise InputError(f"{embeddings}: vectors of other texts than the documents of {logs.path}; embed these")
    if dim not in (None, found.dim):
        raise InputError(f"{embeddings}: vectors of {found.dim} components, and --dim is {dim}; give --dim {found.dim}")
    if found.ids == ids:
        return found
    place = {doc_id: row for row, doc_id in enumerate(found.ids)}
    missing = [doc_id for doc_id in corpus.doc_ids if doc_id not in place]
    if missing or len(found.ids) != len(corpus.doc_ids):
        raise InputError(
            f"{embeddings}: {len(found.ids)} vectors for the {len(corpus.doc_ids)} documents of {logs.path}"
            + (f", none for {missing[0]!r}" if missing else "")
            + "; embed again with launch.embed"
        )
    rows = take_rows(found.shards, np.asarray([place[doc_id] for doc_id in ids]))
    return Embeddings(ids, (rows,), found.dtype)


def _fingerprints(logs: LogTables) -> set[str]:
    table = logs.path / "documents.parquet"
    return {
        artifacts.fingerprint(logs.path),
        artifacts.fingerprint(table if table.exists() else Path(table.parent, "documents")),
    }
