"""The systems of a Poly-encoder: it reranks the first documents of the encoder, or it scores every document."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from crops_jax.program.progress import ProgressLine
from crops_jax.retrieval.reranking import reranked
from launch.corpus.documents import Corpus
from launch.evaluation.searching import DEPTH, Retrieved

if TYPE_CHECKING:
    from crops_jax.embeddings.poly_encoder import PolyEncoder

POLY_ENCODER, EXHAUSTIVE = "poly_encoder", "poly_encoder_exhaustive"


def score_by_poly_encoder(
    encoder: Retrieved, queries: Sequence[str], corpus: Corpus, model: "PolyEncoder", *, every_document: bool
) -> tuple[dict[str, Retrieved], dict[str, Any]]:
    """Returns the lists of the Poly-encoder by system, and the description for metrics.json.

    Args:
      encoder: the documents of each query, best first. The system "poly_encoder" has them in the order of its scores.
      queries: the queries of the lists.
      corpus: the documents.
      model: the Poly-encoder. Progress is shown.
      every_document: whether it also scores all documents, in the system "poly_encoder_exhaustive".

    The description has the wall-clock seconds of a query, the compilation of the programs included: those of its
    context vectors, those of reranking and those of scoring all documents.
    """
    from crops_jax.retrieval.poly_encoder import poly_scores_at, poly_top_k

    documents = model.encode(corpus.texts, tower="document", progress=True)
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    contexts = model.contexts(queries, progress=True)
    seconds["contexts"] = time.perf_counter() - started

    started = time.perf_counter()
    with ProgressLine(total=int((encoder.indices >= 0).sum()), desc="Poly-encoder, reranking", unit="pairs") as bar:
        scores = poly_scores_at(
            contexts, documents, encoder.indices, temperature=model.temperature, progress=bar.update
        )
    lists = {POLY_ENCODER: Retrieved(*reranked(encoder, scores))}
    seconds["reranking"] = time.perf_counter() - started

    if every_document:
        started = time.perf_counter()
        pairs = len(queries) * len(documents)
        with ProgressLine(total=pairs, desc="Poly-encoder, every document", unit="pairs") as bar:
            lists[EXHAUSTIVE] = Retrieved(
                *poly_top_k(
                    contexts,
                    documents,
                    min(DEPTH, len(documents)),
                    temperature=model.temperature,
                    order=np.asarray(corpus.order),
                    progress=bar.update,
                )
            )
        seconds["every_document"] = time.perf_counter() - started
    description = {
        "codes": model.config.encoder.query_codes,
        "depth": encoder.indices.shape[1],
        "documents": len(documents),
        "seconds_per_query": {name: total / len(queries) for name, total in seconds.items()},
    }
    return lists, {POLY_ENCODER: description}
