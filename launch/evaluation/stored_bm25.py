"""Keeps the results of BM25 in a file, so that several evaluations on the same queries and documents search once."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crops_jax.artifacts import replaced_file
from crops_jax.errors import InputError
from launch.corpus.documents import Corpus
from launch.evaluation.searching import Retrieved, search_bm25


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
