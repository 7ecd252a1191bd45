"""Prints the documents that a retriever finds for typed queries."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TextIO

import numpy as np
import tyro

from crops_jax import program
from crops_jax.devices import processes
from crops_jax.embeddings import Embeddings
from crops_jax.errors import InputError
from crops_jax.program.help_rules import FlagGroups
from crops_jax.program.progress import say
from crops_jax.program.terminal import printable
from crops_jax.retrieval.bm25 import Bm25
from crops_jax.retrieval.fusion import reciprocal_rank_fusion, weighted_fusion
from crops_jax.runs.encoder import open_encoder
from crops_jax.storage import InputPath
from crops_jax.text import normalise_query
from data.tables import open_logs
from launch.corpus.documents import Corpus, document_vectors, read_corpus
from launch.evaluation.reranking import check_reranker, open_reranker, rerank
from launch.evaluation.searching import DEPTH, Retrieved

_TITLE_CHARACTERS = 100

Ranking = tuple[np.ndarray, np.ndarray]
"""The scores of the documents of one query and their indices in the corpus, best first."""


@dataclass(frozen=True, kw_only=True)
class SearchArguments:
    query: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """The words of the first query. Further queries are read from standard input, one for each line, if it is not a
    terminal. Without a query, all are read from standard input."""
    run: InputPath
    """A run of launch.train, or the folder or the Hugging Face hub name of an encoder."""
    logs: InputPath
    """The log tables whose documents are searched."""
    document_embeddings: InputPath = ""
    """The vectors of the documents, as launch.embed writes them. By default they are computed."""
    dim: int | None = None
    """The number of leading components of each vector. The default is that of --document-embeddings, or all."""
    k: int = 10
    """The number of documents that are printed for each query."""
    fusion: Literal["none", "rrf", "weighted"] = "none"
    """How the list of the encoder and that of BM25 are joined: "rrf" by reciprocal rank fusion, "weighted" by the sum
    of their normalised scores with --encoder-weight."""
    encoder_weight: float | None = None
    """The weight of the encoder in the weighted sum, from 0 to 1; BM25 has the rest. launch.evaluate chooses one on dev
    queries: EVAL/metrics.json has it as fusion.weighted.encoder_weight."""
    rerank: int = 0
    """The number of documents of the list that a relevance discriminator (theta) reranks. 0: none."""
    reranker: InputPath = ""
    """The folder of the discriminator that reranks. The default is the one that data.hold_out kept in --logs."""
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "input": ("run", "logs", "document_embeddings", "dim"),
        "fusion": ("fusion", "encoder_weight"),
        "reranking": ("rerank", "reranker"),
    }


def search(arguments: SearchArguments) -> dict[str, Any]:
    """Prints the best documents of each query with their titles and scores.

    The outcome line holds the results of every query: rank, doc_id, title and score. The score is the inner product of
    unit vectors, at most 1. With --fusion rrf it is the sum of 1 / (60 + rank) over the two lists, and with --fusion
    weighted that of the normalised scores. With --rerank, the first documents have the probability of theta instead.
    """
    processes.refuse_several("launch.search")
    _check(arguments)
    logs = open_logs(arguments.logs)
    corpus = read_corpus(logs)
    reranker = open_reranker(logs, arguments.reranker) if arguments.rerank else None
    encoder = open_encoder(arguments.run)
    vectors = document_vectors(
        encoder,
        corpus,
        embeddings=arguments.document_embeddings,
        logs=logs,
        run=arguments.run,
        dim=arguments.dim,
    )
    lexical = Bm25(corpus.texts) if arguments.fusion != "none" else None
    depth = min(max(arguments.k, arguments.rerank, DEPTH if lexical is not None else 0), len(corpus.doc_ids))
    search_for = _searcher(vectors, corpus, k=depth)
    answered = []
    for typed in _queries(arguments.query, sys.stdin):
        query = normalise_query(typed)
        if not _is_text(query):
            say("(not UTF-8 text, passed over; type or pipe UTF-8)")
            continue
        if not query:
            say("(an empty query finds nothing; type some words)")
            continue
        ranking = search_for(encoder.encode([query], tower="query", dim=vectors.dim))
        if lexical is not None:
            other = lexical.search([query], depth, order=corpus.order)
            ranking = _fused(ranking, other, depth, corpus, encoder_weight=arguments.encoder_weight)
        if reranker is not None:
            ranking, _ = rerank(Retrieved(*ranking), [query], corpus, reranker, depth=arguments.rerank)
        results = _answer(ranking, corpus, k=arguments.k)
        _print(query, results)
        answered.append({"query": query, "results": results})
    return {
        "run": str(Path(arguments.run)),
        "documents": len(corpus.doc_ids),
        "dim": vectors.dim,
        "document_vectors": vectors.dtype,
        "fusion": arguments.fusion,
        "reranked": arguments.rerank,
        "queries": answered,
    }


def _check(arguments: SearchArguments) -> None:
    if arguments.k < 1:
        raise InputError(f"--k must be at least 1, found {arguments.k}")
    weight = arguments.encoder_weight
    if (arguments.fusion == "weighted") != (weight is not None):
        raise InputError("--fusion weighted and --encoder-weight are given together; name both or neither")
    if weight is not None and not 0 <= weight <= 1:
        raise InputError(f"--encoder-weight must lie in 0 to 1, found {weight:g}")
    if arguments.rerank < 0:
        raise InputError(f"--rerank must be at least 0, found {arguments.rerank}")
    check_reranker(arguments.reranker, depth=arguments.rerank)


def _fused(encoder: Ranking, bm25: Ranking, depth: int, corpus: Corpus, *, encoder_weight: float | None) -> Ranking:
    """Returns the joined list: by reciprocal ranks without a weight, and otherwise by the weighted sum of scores."""
    if encoder_weight is None:
        return reciprocal_rank_fusion([encoder, bm25], depth, order=corpus.order)
    return weighted_fusion([encoder, bm25], (encoder_weight, 1 - encoder_weight), depth, order=corpus.order)


def _queries(first: tuple[str, ...], lines: TextIO) -> Iterator[str]:
    """Yields the query of the command line, then the lines of standard input.

    A terminal is read only if the command line has no query; a prompt comes first.
    """
    if first:
        yield " ".join(first)
    if lines.isatty():
        if first:
            return
        say("type a query a line; an end of file (Ctrl-D) ends")
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise InputError(f"standard input: not UTF-8 text ({error}); type or pipe UTF-8") from error


def _is_text(query: str) -> bool:
    """Returns whether a query is valid Unicode. In some locales, bytes that are not UTF-8 become lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in query)


def _searcher(vectors: Embeddings, corpus: Corpus, *, k: int) -> Callable[[np.ndarray], Ranking]:
    """Returns the search function: it keeps the documents on the device, or reads them in blocks if they are many."""
    import jax.numpy as jnp

    from crops_jax.retrieval.exact import exact_top_k, local_mesh
    from crops_jax.retrieval.mapped import BLOCK_BYTES, mapped_top_k

    if len(corpus.doc_ids) * vectors.dim * 4 > BLOCK_BYTES:
        return lambda query: mapped_top_k(query, vectors.shards, k, order=corpus.order, mesh=local_mesh())
    documents = jnp.asarray(vectors.array())
    return lambda query: exact_top_k(query, documents, k, order=corpus.order)


def _answer(ranking: Ranking, corpus: Corpus, *, k: int) -> list[dict[str, Any]]:
    scores, indices = ranking
    return [
        {"rank": rank, "doc_id": corpus.doc_ids[at], "title": corpus.titles[at], "score": round(float(score), 4)}
        for rank, (score, at) in enumerate(zip(scores[0, :k], indices[0, :k], strict=True), start=1)
    ]


def _print(query: str, results: list[dict[str, Any]]) -> None:
    say(f"\n{_printable(query)}")
    for row in results:
        say(f"{row['rank']:4}  {row['score']:7.4f}  {_printable(row['title'])}  [{_printable(row['doc_id'])}]")


def _printable(text: str) -> str:
    """Returns the text in one line of limited length without control characters."""
    shown = printable(text)
    return shown if len(shown) <= _TITLE_CHARACTERS else shown[: _TITLE_CHARACTERS - 1] + "…"


if __name__ == "__main__":
    program.run(
        search,
        example='python -m launch.search --run run --logs logs "red car"',
        uses_devices=True,
        device=True,
        table=False,
    )
