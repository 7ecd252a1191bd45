"""The search by BM25: its results can be kept in a file, and dev queries can choose its parameters."""

import hashlib
import itertools
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crops_jax.artifacts import replaced_file
from crops_jax.errors import InputError
from crops_jax.program.progress import ProgressLine
from crops_jax.retrieval.bm25 import Bm25
from launch.corpus.documents import Corpus
from launch.evaluation.dev_queries import DevQueries
from launch.evaluation.searching import DEPTH, Bm25Parameters, Retrieved

GRID = tuple(itertools.product((0.6, 0.9, 1.2, 2.0), (0.25, 0.4, 0.75, 0.9)))
"""The pairs (k1, b) that are tried. The defaults of Lucene and of Anserini are among them."""
_QUERIES_AT_ONCE = 64


def search_bm25(queries: Sequence[str], corpus: Corpus, *, k1: float, b: float) -> Retrieved:
    """The documents of the greatest BM25 scores for each query."""
    index, order = Bm25(corpus.texts, k1=k1, b=b), corpus.order
    parts = [
        index.search(queries[start : start + _QUERIES_AT_ONCE], min(DEPTH, len(corpus.doc_ids)), order=order)
        for start in ProgressLine(range(0, len(queries), _QUERIES_AT_ONCE), desc="BM25", unit="batches")
    ]
    return Retrieved(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def tune_bm25(dev: DevQueries, corpus: Corpus) -> Bm25Parameters:
    """Returns the pair of GRID with the highest mean metric over the dev queries; the first of equal ones.

    Raises InputError if there are no dev queries.
    """
    if dev.absent:
        raise InputError(f"--tune-bm25 needs dev queries, and there are none: {dev.absent}")
    curve = []
    for k1, b in ProgressLine(GRID, desc="tuning BM25", unit="pairs of k1 and b"):
        value = dev.mean(search_bm25(dev.queries, corpus, k1=k1, b=b).indices, corpus.doc_ids)
        curve.append({"k1": k1, "b": b, "value": value})
    best = max(curve, key=lambda one: one["value"])
    described = {"chosen_on": dev.source, "metric": dev.metric, "queries": len(dev.queries), "curve": curve}
    return Bm25Parameters(best["k1"], best["b"], described)


def stored_bm25(file: Path, queries: Sequence[str], corpus: Corpus, *, k1: float, b: float) -> Retrieved:
    """Returns what BM25 retrieves, from `file` if it holds these queries, documents and parameters.

    Otherwise BM25 searches, and the file is written or replaced.

    Raises InputError when the file exists and is not one that this function wrote.
    """
    key = _key(queries, corpus, k1=k1, b=b)
    if file.exists():
        stored_key, retrieved = _read(file)
        if stored_key == key:
            return retrieved
    retrieved = search_bm25(queries, corpus, k1=k1, b=b)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(file) as temporary, open(temporary, "wb") as opened:
        np.savez(opened, key=np.array(key), scores=retrieved.scores, indices=retrieved.indices)
    return retrieved


def _read(file: Path) -> tuple[str, Retrieved]:
    try:
        with np.load(file, allow_pickle=False) as stored:
            return str(stored["key"]), Retrieved(stored["scores"], stored["indices"])
    except (ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"--bm25-results {file}: not results of BM25 ({error}); remove the file") from error


def _key(queries: Sequence[str], corpus: Corpus, *, k1: float, b: float) -> str:
    """Returns the SHA-256 of all that the results depend on; every text is preceded by its length."""
    total = hashlib.sha256(repr((k1, b, len(queries), len(corpus.doc_ids))).encode())
    for texts in (queries, corpus.doc_ids, corpus.texts):
        for text in texts:
            encoded = text.encode()
            total.update(len(encoded).to_bytes(8, "little") + encoded)
    return total.hexdigest()
