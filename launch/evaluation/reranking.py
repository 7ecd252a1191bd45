"""The system that reranks the first documents of the encoder by a relevance discriminator (theta)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crops_jax.discriminator import DESCRIPTION, Discriminator
from crops_jax.errors import InputError
from crops_jax.program.progress import ProgressLine
from crops_jax.retrieval.reranking import reranked
from data.mining.relevance.theta import FOLDER, Theta, open_theta, refuse_seen_answers
from data.tables import LogTables
from launch.corpus.documents import Corpus
from launch.evaluation.searching import Retrieved

RERANKED = "reranked"


class Reranker(NamedTuple):
    """A discriminator that reranks, and its origin."""

    theta: Theta
    origin: str
    """ "SPLIT/discriminator" or "--reranker"."""
    chose_qr: bool | None
    """Whether it chose the reformulation positives (QR) of this SPLIT; None if the SPLIT does not keep what did."""


def check_reranker(folder: str, *, depth: int) -> None:
    """Raises InputError if a discriminator is named and no document of a list is reranked."""
    if folder and not depth:
        raise InputError("--reranker names a discriminator, but nothing is reranked; give --rerank 100 too")


def open_reranker(logs: LogTables, folder: str) -> Reranker:
    """Returns the discriminator of `folder`, or, if that is empty, the one that is kept in SPLIT.

    Raises:
      InputError: there is none, it cannot be read, or it was fitted on what SPLIT holds out.
    """
    kept = logs.path / FOLDER
    if not folder:
        if not kept.is_dir():
            raise InputError(
                f"--rerank: {logs.path} keeps no discriminator; name one with --reranker, such as a run of "
                "launch.train_discriminator on these logs"
            )
        return Reranker(open_theta(kept), f"SPLIT/{FOLDER}", True)
    theta = open_theta(folder)
    refuse_seen_answers(theta, folder, logs.path, argument="--reranker")
    chose_qr = _same(theta.discriminator, folder, kept) if kept.is_dir() else None
    return Reranker(theta, "--reranker", chose_qr)


def rerank(
    encoder: Retrieved, queries: Sequence[str], corpus: Corpus, reranker: Reranker, *, depth: int
) -> tuple[Retrieved, dict[str, Any]]:
    """Returns the encoder's lists with their first documents reranked, and the description for metrics.json.

    Args:
      encoder: the documents of each query, best first.
      queries: the queries of the lists.
      corpus: the documents.
      reranker: its theta scores each pair; progress is shown.
      depth: the number of documents of each list that are reranked.
    """
    depth = min(depth, encoder.indices.shape[1])
    scores = _scores(reranker.theta.discriminator, queries, encoder.indices[:, :depth], corpus)
    fitted = reranker.theta.fitted
    description = {
        "depth": depth,
        "from": reranker.origin,
        "kind": fitted["kind"],
        "fitted_on": fitted["source"],
        "chose_qr": reranker.chose_qr,
    }
    return Retrieved(*reranked(encoder, scores)), {"reranking": description}


def reranking_note(description: dict[str, Any]) -> str:
    """Returns the sentence that a reader of the figures of "reranked" has to know."""
    if description["chose_qr"] is False:
        return (
            "The system reranked is ordered by another discriminator than the one that chose the reformulation "
            "positives (QR), yet the two may agree with each other more than with people; judge it by CT and NDCG."
        )
    unknown = " (as far as is known)" if description["chose_qr"] is None else ""
    return (
        "The system reranked is ordered by the relevance discriminator (theta) that also chose the reformulation "
        f"positives (QR){unknown}, so its QR figures are circular; judge it by CT and NDCG."
    )


def _scores(discriminator: Discriminator, queries: Sequence[str], indices: np.ndarray, corpus: Corpus) -> np.ndarray:
    scores = np.zeros(indices.shape, np.float32)
    places = np.argwhere(indices >= 0)
    with ProgressLine(total=len(places), desc="reranking", unit="pairs") as bar:
        for start in range(0, len(places), discriminator.pairs_at_once):
            rows, ranks = places[start : start + discriminator.pairs_at_once].T
            documents = [corpus.texts[int(index)] for index in indices[rows, ranks]]
            scores[rows, ranks] = discriminator.score([queries[int(row)] for row in rows], documents)
            bar.update(len(rows))
    return scores


def _same(discriminator: Discriminator, folder: str, kept: Path) -> bool:
    """Returns whether the folder of a discriminator holds the one that is kept in SPLIT."""
    if discriminator.fingerprint is not None:
        return discriminator.fingerprint == open_theta(kept).discriminator.fingerprint
    return (Path(folder) / DESCRIPTION).read_bytes() == (kept / DESCRIPTION).read_bytes()
