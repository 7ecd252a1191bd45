"""Scores of distinct pairs: they are read from Ibis, scored by crops_jax, and returned as a table for joins.

The scores of a slow discriminator are cached on disk, so that mining that was interrupted does not score them again.

FOLDER/FINGERPRINT/scores-DIGEST.parquet holds the keys and scores of the pairs of one call; it is written completely
or not at all. FINGERPRINT identifies the discriminator, and a key identifies the two texts: if either changes, the pair
is scored again.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from crops_jax.artifacts import replaced_file
from crops_jax.discriminator import Discriminator
from crops_jax.discriminator.similarity import Similarity
from crops_jax.errors import InputError
from crops_jax.program.progress import ProgressLine
from crops_jax.text import DOCUMENT_FIELDS, document_text
from crops_jax.text.forms import distinct
from data.backends.connection import Connection, arrow_batches

_DOCUMENTS_AT_ONCE = 20_000
_DECIMALS = 6
_KEY_BYTES = 16
_SCHEMA = pa.schema([pa.field("key", pa.binary(_KEY_BYTES)), pa.field("score", pa.float32())])


def similarity_table(connection: Connection, pairs: ibis.Table, similarity: Similarity) -> ibis.Table:
    """Returns the table (query, via_query, similarity) of the distinct (query, via_query) of a table."""
    found = pairs.select("query", "via_query").distinct().order_by("query", "via_query").to_pyarrow()
    scores = similarity.score(found["query"].to_pylist(), found["via_query"].to_pylist())
    return _as_table(connection, found.append_column("similarity", _rounded(scores)))


def theta_table(
    connection: Connection, pairs: ibis.Table, discriminator: Discriminator, *, documents: ibis.Table | None = None
) -> ibis.Table:
    """Returns the table (query, doc_id, score) of the distinct (query, doc_id) of a table.

    Each distinct pair is scored once. Each document is read once; 20,000 documents are in memory at a time. Pairs whose
    document is not in the table of documents get no row.

    Args:
      connection: the Ibis backend of all tables.
      pairs: a table with query and doc_id.
      discriminator: theta.
      documents: a table with doc_id and some of the fields of a document's text; None: the table documents.
    """
    pairs = pairs.select("query", "doc_id").distinct()
    if documents is None:
        documents = connection.table("documents").select("doc_id", *DOCUMENT_FIELDS)
    wanted = documents.semi_join(pairs, "doc_id").order_by("doc_id")
    found = pairs.semi_join(documents, "doc_id").order_by("doc_id", "query").to_pyarrow()
    scores = np.empty(len(found), np.float32)
    # Documents and pairs are both sorted by doc_id, so that the pairs of consecutive documents are consecutive.
    lengths = _run_lengths(found["doc_id"])
    queries = found["query"]
    first_document = first_pair = 0
    with ProgressLine(total=len(found), desc="scoring pairs", unit="pairs") as bar:
        for texts in _texts(connection, wanted):
            counts = lengths[first_document : first_document + len(texts)]
            document_of = np.repeat(np.arange(len(texts)), counts)
            for part in _parts(document_of, discriminator.pairs_at_once):
                scores[first_pair : first_pair + len(part)] = discriminator.score(
                    queries.slice(first_pair, len(part)).to_pylist(), [texts[document] for document in part]
                )
                first_pair += len(part)
                bar.update(len(part))
            first_document += len(texts)
    return _as_table(connection, found.append_column("score", _rounded(scores)))


def _texts(connection: Connection, documents: ibis.Table) -> Iterator[list[str]]:
    for batch in arrow_batches(connection, documents, rows=_DOCUMENTS_AT_ONCE):
        yield [document_text(document) for document in batch.to_pylist()]


def _parts(documents: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(documents), size):
        yield documents[start : start + size]


def _run_lengths(values: pa.ChunkedArray) -> np.ndarray:
    indices = values.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return np.bincount(indices) if len(indices) else np.zeros(0, np.int64)


def _rounded(scores: np.ndarray) -> pa.Array:
    # Scores are rounded before they are compared with alpha and beta, so that the written scores agree with the result.
    return pa.array(np.round(scores.astype(np.float64), _DECIMALS))


def _as_table(connection: Connection, table: pa.Table) -> ibis.Table:
    return connection.create_table(ibis.util.gen_name("scores"), table, temp=True)


def remembering(discriminator: Discriminator, *, output: str, score_cache: str | None) -> Discriminator:
    """Returns the discriminator with a cache of its scores, or unchanged if scoring is cheap.

    Args:
      discriminator: the discriminator; it has a fingerprint if scoring is expensive.
      output: the directory for which pairs are scored.
      score_cache: the directory of the cache; None for OUTPUT.scores.
    """
    if discriminator.fingerprint is None:
        return discriminator
    return RememberingDiscriminator(discriminator, score_cache or _folder(output))


def forget(*, output: str, score_cache: str | None) -> None:
    """Removes the default cache of an output that is complete. A cache that the user named is kept.

    Other files in the folder of the cache are kept.
    """
    if score_cache is not None:
        return
    folder = _folder(output)
    for file in [*folder.glob("*/scores-*.parquet"), *folder.glob("*/.scores-*.tmp")]:
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the folder holds other files
            file.parent.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()


class RememberingDiscriminator:
    """A discriminator that scores only pairs that are not in its cache, and adds them to the cache.

    See `crops_jax.discriminator.Discriminator`. Scores that another process adds at the same time are not used; both
    processes can write without conflict.
    """

    def __init__(self, discriminator: Discriminator, folder: Path | str):
        """Reads the cache. Raises InputError, which names the file, if it cannot be read."""
        self._discriminator = discriminator
        self.pairs_at_once, self.fingerprint = discriminator.pairs_at_once, discriminator.fingerprint
        if discriminator.fingerprint is None:
            raise ValueError(
                "a discriminator without a fingerprint cannot be distinguished from others, so no score is kept"
            )
        self._folder = Path(folder) / discriminator.fingerprint
        keys, scores = _read(self._folder)
        order = np.argsort(keys)
        self._keys, self._scores = keys[order], scores[order]

    def score(self, queries: Sequence[str], documents: Sequence[str]) -> Float32[np.ndarray, "pairs"]:
        """Returns theta of each pair; see `Discriminator.score`."""
        keys = _keys(queries, documents)
        positions = np.searchsorted(self._keys, keys)
        known = np.zeros(len(keys), bool)
        inside = positions < len(self._keys)
        known[inside] = self._keys[positions[inside]] == keys[inside]
        scores = np.empty(len(keys), np.float32)
        scores[known] = self._scores[positions[known]]
        new = np.flatnonzero(~known).tolist()
        if new:
            scores[new] = self._discriminator.score([queries[i] for i in new], [documents[i] for i in new])
            _write(self._folder, keys[new], scores[new])
        return scores

    def save(self, folder: Path | str) -> None:
        """Writes the discriminator without its cache."""
        self._discriminator.save(folder)


def _folder(output: str) -> Path:
    return Path(output).with_name(f"{Path(output).name}.scores")


def _keys(queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    query_texts, query_of = distinct(queries)
    document_texts, document_of = distinct(documents)
    parts = [[_digest(text.encode()) for text in texts] for texts in (query_texts, document_texts)]
    joined = (_digest(parts[0][query] + parts[1][document]) for query, document in zip(query_of, document_of))
    # NumPy drops zero bytes at the end of such values. All keys have one length, so distinct keys stay distinct.
    return np.fromiter(joined, f"S{_KEY_BYTES}", len(queries))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_KEY_BYTES).digest()


def _read(folder: Path) -> tuple[np.ndarray, Float32[np.ndarray, "pairs"]]:
    keys, scores = [np.zeros(0, f"S{_KEY_BYTES}")], [np.zeros(0, np.float32)]
    for file in sorted(folder.glob("scores-*.parquet")):
        try:
            table = pq.read_table(file, schema=_SCHEMA)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{file}: scores that cannot be read ({error}); remove the file") from error
        keys.append(np.array(table["key"].to_pylist(), f"S{_KEY_BYTES}"))
        scores.append(table["score"].to_numpy())
    return np.concatenate(keys), np.concatenate(scores)


def _write(folder: Path, keys: np.ndarray, scores: Float32[np.ndarray, "pairs"]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    whole = [key.ljust(_KEY_BYTES, b"\0") for key in keys.tolist()]
    file = folder / f"scores-{hashlib.sha256(b''.join(whole)).hexdigest()[:_KEY_BYTES]}.parquet"
    with replaced_file(file) as temporary:
        pq.write_table(pa.table([pa.array(whole, pa.binary(_KEY_BYTES)), pa.array(scores)], schema=_SCHEMA), temporary)
