"""Distinct pairs leave Ibis, are scored through crops_jax, and come back as a table to be joined.

Scores of a slow discriminator kept on disk, so that mining that was interrupted does not score again.

FOLDER/FINGERPRINT/scores-DIGEST.parquet: key and score of the pairs of one call, put in place whole. The fingerprint is
the discriminator's, and a key that of the two texts: whatever changes either is scored anew.
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
from tqdm import tqdm

from crops_jax.artifacts import replaced_file
from crops_jax.discriminator import Discriminator
from crops_jax.discriminator.similarity import Similarity
from crops_jax.errors import InputError
from crops_jax.text import DOCUMENT_FIELDS, document_text
from crops_jax.text.forms import distinct
from data.backends.connection import Connection, arrow_batches

_DOCUMENTS_AT_ONCE = 20_000
_DECIMALS = 6
_KEY_BYTES = 16
_SCHEMA = pa.schema([pa.field("key", pa.binary(_KEY_BYTES)), pa.field("score", pa.float32())])


def similarity_table(connection: Connection, pairs: ibis.Table, similarity: Similarity) -> ibis.Table:
    """query, via_query, similarity of the distinct (query, via_query) of a table."""
    found = pairs.select("query", "via_query").distinct().order_by("query", "via_query").to_pyarrow()
    scores = similarity.score(found["query"].to_pylist(), found["via_query"].to_pylist())
    return _as_table(connection, found.append_column("similarity", _rounded(scores)))


def theta_table(connection: Connection, pairs: ibis.Table, discriminator: Discriminator) -> ibis.Table:
    """query, doc_id, score of the distinct (query, doc_id) of a table.

    Documents pass through memory some thousands at a time, each once, and each distinct pair is scored once. Pairs
    whose document is not in the table documents get no row.
    """
    pairs = pairs.select("query", "doc_id").distinct()
    documents = connection.table("documents")
    wanted = documents.semi_join(pairs, "doc_id").select("doc_id", *DOCUMENT_FIELDS).order_by("doc_id")
    found = pairs.semi_join(documents, "doc_id").order_by("doc_id", "query").to_pyarrow()
    scores = np.empty(len(found), np.float32)
    # Both are in the same order of doc_id: the pairs of a stretch of documents are a stretch of pairs.
    lengths = _run_lengths(found["doc_id"])
    queries = found["query"]
    first_document = first_pair = 0
    with tqdm(total=len(found), desc="scoring pairs", unit="pair", delay=2) as bar:
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
    # What is written is what is compared with alpha and beta.
    return pa.array(np.round(scores.astype(np.float64), _DECIMALS))


def _as_table(connection: Connection, table: pa.Table) -> ibis.Table:
    return connection.create_table(ibis.util.gen_name("scores"), table, temp=True)


def remembering(discriminator: Discriminator, *, output: str, score_cache: str | None) -> Discriminator:
    """The discriminator with a memory of its scores, or as it is where scoring costs little.

    Args:
      discriminator: it has a fingerprint where scoring costs much.
      output: the directory that the scores are for.
      score_cache: where they are kept; None: in OUTPUT.scores.
    """
    if discriminator.fingerprint is None:
        return discriminator
    return RememberingDiscriminator(discriminator, score_cache or _folder(output))


def forget(*, output: str, score_cache: str | None) -> None:
    """Removes what was remembered for one output that is written now. A cache that was named is kept.

    A folder of that name may hold something else too, which stays.
    """
    if score_cache is not None:
        return
    folder = _folder(output)
    for file in [*folder.glob("*/scores-*.parquet"), *folder.glob("*/.scores-*.tmp")]:
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds more
            file.parent.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()


class RememberingDiscriminator:
    """Scores pairs that are not in the cache, and puts them there; see `crops_jax.discriminator.Discriminator`.

    What another process adds meanwhile is not seen, and does no harm.
    """

    def __init__(self, discriminator: Discriminator, folder: Path | str):
        """Reads the cache. Raises InputError, naming the file, where it cannot be read."""
        self._discriminator = discriminator
        self.pairs_at_once, self.fingerprint = discriminator.pairs_at_once, discriminator.fingerprint
        if discriminator.fingerprint is None:
            raise ValueError("a discriminator without a fingerprint cannot be told from others, so nothing is kept")
        self._folder = Path(folder) / discriminator.fingerprint
        keys, scores = _read(self._folder)
        order = np.argsort(keys)
        self._keys, self._scores = keys[order], scores[order]

    def score(self, queries: Sequence[str], documents: Sequence[str]) -> Float32[np.ndarray, "pairs"]:
        """theta of each pair; see `Discriminator.score`."""
        keys = _keys(queries, documents)
        place = np.searchsorted(self._keys, keys)
        known = np.zeros(len(keys), bool)
        inside = place < len(self._keys)
        known[inside] = self._keys[place[inside]] == keys[inside]
        scores = np.empty(len(keys), np.float32)
        scores[known] = self._scores[place[known]]
        left = np.flatnonzero(~known).tolist()
        if left:
            scores[left] = self._discriminator.score([queries[i] for i in left], [documents[i] for i in left])
            _write(self._folder, keys[left], scores[left])
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
    # Of one length, so that the zeros which NumPy leaves out at the end of such bytes make no two of them equal.
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
