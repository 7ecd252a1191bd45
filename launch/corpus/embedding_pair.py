"""The embeddings of queries and documents by one encoder, as launch.embed writes them."""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from crops_jax import artifacts
from crops_jax.embeddings import Embeddings, iterate, open_embeddings, read_layout, shard_is_finished
from crops_jax.errors import InputError
from crops_jax.program.progress import ProgressLine

# Storing a unit vector in fewer bytes changes its length by less than this.
_LENGTH_TOLERANCE = 1e-2


class EmbeddingPair(NamedTuple):
    """The embeddings of queries and of documents by one encoder."""

    queries: Embeddings
    documents: Embeddings


def open_pair(query_embeddings: str, document_embeddings: str) -> EmbeddingPair:
    """Opens the embeddings of queries and of documents, after checking every vector.

    Raises:
      InputError: one belongs to the wrong tower, they belong to different encoders, a shard is missing or damaged, or a
        vector is not a unit vector.
    """
    queries = _open(query_embeddings, tower="query")
    documents = _open(document_embeddings, tower="document")
    one, other = (artifacts.read_manifest(path).get("encoder") for path in (query_embeddings, document_embeddings))
    if one is None or one != other:
        raise InputError(
            f"--query-embeddings {query_embeddings} and --document-embeddings {document_embeddings} are of different "
            "encoders, or of one before and after further training, so their vectors cannot be compared; embed both "
            "with the same --run"
        )
    if queries.dim != documents.dim:
        raise InputError(
            f"{query_embeddings} has vectors of {queries.dim} numbers and {document_embeddings} of {documents.dim}; "
            "embed both in one dimension"
        )
    return EmbeddingPair(queries, documents)


def _open(path: str, *, tower: Literal["query", "document"]) -> Embeddings:
    argument = "query" if tower == "query" else "document"
    layout, embeddings = read_layout(Path(path)), open_embeddings(path)
    written_tower = artifacts.read_manifest(path)["arguments"].get("tower")
    if written_tower != tower:
        raise InputError(
            f"--{argument}-embeddings {path}: vectors of the {written_tower} tower; embed with launch.embed --tower "
            f"{tower}"
        )
    with ProgressLine(total=layout.rows, desc=f"checking {tower} vectors", unit="rows", leave=False) as progress:
        for shard, (ids, vectors) in enumerate(iterate(embeddings)):
            file = Path(path) / layout.file("embeddings", shard)
            if not shard_is_finished(Path(path), layout, shard, ids=ids):
                raise InputError(f"{file}: not the vectors that its ids were written with; call launch.embed again")
            lengths = np.linalg.norm(vectors[:], axis=1)
            wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _LENGTH_TOLERANCE))
            if len(wrong):
                raise InputError(
                    f"{file}, row {wrong[0]} (counted from 0): a vector of length {lengths[wrong[0]]:.3g}, not 1; "
                    "check the run, then embed again"
                )
            progress.update(len(ids))
    return embeddings
