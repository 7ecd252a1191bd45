"""Prints the documents that a retriever finds for typed queries."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import numpy as np
import tyro

from crops_jax import program
from crops_jax.devices import processes
from crops_jax.embeddings import Embeddings
from crops_jax.errors import InputError
from crops_jax.program.progress import say
from crops_jax.program.terminal import printable
from crops_jax.retrieval.bm25 import Bm25
from crops_jax.retrieval.fusion import reciprocal_rank_fusion
from crops_jax.runs.encoder import open_encoder
from crops_jax.storage import InputPath
from crops_jax.text import normalise_query
from data.tables import open_logs
from launch.corpus.documents import Corpus, document_vectors, read_corpus
from launch.evaluation.searching import DEPTH

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
    fusion: Literal["none", "rrf"] = "none"
    """With "rrf", the list of the encoder and that of BM25 are joined by reciprocal rank fusion."""


def search(arguments: SearchArguments) -> dict[str, Any]:
    """Prints the best documents of each query with their titles and scores.

    The outcome line holds the results of every query: rank, doc_id, title and score. The score is the inner product of
    unit vectors, at most 1; with --fusion rrf it is the sum of 1 / (60 + rank) over the two lists.
    """
    processes.refuse_several("launch.search")
    if arguments.k < 1:
        raise InputError(f"--k must be at least 1, found {arguments.k}")
    logs = open_logs(arguments.logs)
    corpus = read_corpus(logs)
    encoder = open_encoder(arguments.run)
    vectors = document_vectors(
        encoder,
        corpus,
        embeddings=arguments.document_embeddings,
        logs=logs,
        run=arguments.run,
        dim=arguments.dim,
    )
    k = min(arguments.k, len(corpus.doc_ids))
    fused = arguments.fusion == "rrf"
    search_for = _searcher(vectors, corpus, k=min(max(k, DEPTH), len(corpus.doc_ids)) if fused else k)
    lexical = Bm25(corpus.texts) if fused else None
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
            other = lexical.search([query], ranking[1].shape[1], order=corpus.order)
            ranking = reciprocal_rank_fusion([ranking, other], k, order=corpus.order)
        results = _answer(ranking, corpus)
        _print(query, results)
        answered.append({"query": query, "results": results})
    return {
        "run": str(Path(arguments.run)),
        "documents": len(corpus.doc_ids),
        "dim": vectors.dim,
        "document_vectors": vectors.dtype,
        "fusion": arguments.fusion,
        "queries": answered,
    }


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


def _answer(ranking: Ranking, corpus: Corpus) -> list[dict[str, Any]]:
    scores, indices = ranking
    return [
        {"rank": rank, "doc_id": corpus.doc_ids[at], "title": corpus.titles[at], "score": round(float(score), 4)}
        for rank, (score, at) in enumerate(zip(scores[0], indices[0], strict=True), start=1)
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
