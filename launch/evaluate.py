"""Builds the index of an encoder and measures what it finds, beside BM25 and the fusion of both."""

from crops_jax.devices.process_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # before NumPy starts a thread

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from crops_jax import artifacts, program
from crops_jax.devices import processes
from crops_jax.errors import InputError
from crops_jax.program.help_rules import FlagGroups
from crops_jax.program.progress import say
from crops_jax.retrieval.evaluation import TestSet, Value, values
from crops_jax.retrieval.ties import TiedFigure, tied_figures
from crops_jax.runs.encoder import open_encoder, open_poly_encoder
from crops_jax.storage import InputPath, LocalPath, OutputPath
from data.tables import LogTables, open_logs
from launch.corpus.documents import Corpus, document_vectors, read_corpus
from launch.evaluation.dev_queries import DevQueries, read_dev_queries
from launch.evaluation.files import write_evaluation
from launch.evaluation.fusing import fuse
from launch.evaluation.lexical_search import search_bm25, stored_bm25, tune_bm25
from launch.evaluation.lineage import trained_on
from launch.evaluation.metrics import figure_tables, headline, index_gap
from launch.evaluation.notes import evaluation_notes, judging_notes, tie_notes
from launch.evaluation.poly_encoder import score_by_poly_encoder
from launch.evaluation.reranking import RERANKED, check_reranker, open_reranker, rerank, reranking_note
from launch.evaluation.searching import (
    DEPTH,
    Bm25Parameters,
    Retrieved,
    SearchResults,
    index_depth,
    search_exactly,
)
from launch.evaluation.test_sets import log_queries, read_test_sets


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    run: InputPath
    """A run of launch.train, or the folder or the Hugging Face hub name of an untrained encoder."""
    logs: InputPath
    """SPLIT, the log tables with test_clicks, test_reformulations, or judgements of split test."""
    output: OutputPath
    """EVAL, the directory for metrics.json, per_query.parquet, retrieved.parquet, relevant.parquet and index/."""
    document_embeddings: InputPath = ""
    """The vectors of the documents, as launch.embed writes them. By default they are computed."""
    dim: int | None = None
    """The number of leading components of each vector. The default is that of --document-embeddings, or all."""
    name: str = ""
    """The name of this system in tables and pages. The default is the name of the folder."""
    k1: float = 1.2
    """The saturation of the term frequency in BM25."""
    b: float = 0.75
    """The strength of the length normalisation in BM25, 0 to 1."""
    tune_bm25: bool = False
    """Whether dev queries choose k1 and b among 16 pairs, instead of --k1 and --b. It takes a minute for 60,000
    documents."""
    dev_queries: int = 1000
    """The maximum number of dev queries on which the weight of the weighted fusion and, with --tune-bm25, the
    parameters of BM25 are chosen. 0: the system fusion_weighted is omitted."""
    relevant_grade: float | None = None
    """The minimum grade of a relevant judgement. By default every grade above 0 is relevant."""
    rerank: int = 0
    """The number of documents of the encoder that a relevance discriminator (theta) reranks for each query: the system
    reranked. 0: it is omitted, because a cross-encoder is slow."""
    reranker: InputPath = ""
    """The folder of the discriminator that reranks. The default is the one that data.hold_out kept in SPLIT."""
    rerank_by: InputPath = ""
    """A run of a Poly-encoder (launch.train with --encoder.query-codes), which reranks the first 200 documents of the
    encoder for each query: the system poly_encoder."""
    every_document: bool = False
    """Whether the Poly-encoder also scores every document for each query: the system poly_encoder_exhaustive, an upper
    bound of what it can rerank. It takes seconds where the encoder takes milliseconds."""
    bootstrap_samples: int = 2000
    """The number of bootstrap samples for each interval."""
    bm25_results: LocalPath = ""
    """A file that keeps what BM25 retrieves, so that several evaluations on the same queries and documents search
    once. It is written if it does not exist."""
    overwrite: bool = False
    """Replaces the output if it exists."""
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "input": ("run", "logs", "document_embeddings", "dim", "relevant_grade"),
        "output": ("output", "overwrite", "name"),
        "lexical": ("k1", "b", "tune_bm25", "dev_queries", "bm25_results"),
        "reranking": ("rerank", "reranker", "rerank_by", "every_document"),
        "advanced": ("bootstrap_samples",),
    }


def evaluate(arguments: EvaluateArguments) -> dict[str, Any]:
    """Measures a retriever on the held-out part of the logs, and BM25 and the fusion of both on the same queries.

    The tests are the click test (CT: documents that were clicked later), the query reformulation test (QR: documents
    that were consumed after a later reformulation of the query) and the judgements of split test. For a generated world
    they include the hidden relevant documents, which no search of the log showed for the query. The program writes
    each figure with its number of queries and a bootstrap interval. It also writes the figures separately for queries
    and pairs that the log already contains and for those that it does not, and the difference between the index and
    exact search.

    The system fusion_rrf joins the lists of the encoder and of BM25 by reciprocal rank fusion, and fusion_weighted by a
    weighted sum of their normalised scores. Its weight is chosen on dev queries, of which none is in a test set. With
    --rerank, the system reranked has the first documents of the encoder in the order of theta. With --rerank-by, the
    system poly_encoder has them in the order of a Poly-encoder.
    """
    processes.refuse_several("launch.evaluate")
    _check(arguments)
    inputs = _inputs(arguments)
    artifacts.check_output(arguments.output, overwrite=arguments.overwrite, inputs=inputs)
    logs = open_logs(arguments.logs)
    trained = trained_on(arguments.run, arguments.logs)
    if arguments.rerank_by:
        trained_on(arguments.rerank_by, arguments.logs)  # refuses one that has seen the answers
    corpus = read_corpus(logs)
    tests, absent = read_test_sets(logs, corpus.doc_ids, relevant_grade=arguments.relevant_grade)
    results = _search(arguments, logs, corpus, tests)
    per_query = {
        system: [value for test in tests for value in values(test, rankings)]
        for system, rankings in results.rankings.items()
    }
    tied = {
        system: tied_figures(tests, answers, results.corpus.doc_ids) for system, answers in results.answers().items()
    }
    decided_by_ids = tie_notes(tied)
    for note in decided_by_ids:
        say(f"warning: {note}")
    tables = _figures(results, per_query, samples=arguments.bootstrap_samples)
    metrics = {
        **_setting(arguments, results, trained),
        "tests": {test.name: dict(test.counts) for test in tests} | {k: {"absent": why} for k, why in absent.items()},
        **tables,
        **_ties(tied),
        "notes": [
            *decided_by_ids,
            *judging_notes(tables["systems"]),
            *evaluation_notes(arguments.logs, results.index, trained),
            *_reranking_notes(results, tests),
        ],
    }
    with artifacts.output_directory(
        arguments.output,
        overwrite=arguments.overwrite,
        program="launch.evaluate",
        kind="evaluation",
        arguments=_recorded(arguments) | ({} if inputs["run"] else {"hub_name": arguments.run}),
        inputs=inputs,
    ) as output:
        write_evaluation(output, metrics, per_query, tests, results)
    return {
        "output": arguments.output,
        "name": metrics["name"],
        "metrics": {system: headline(tables) for system, tables in metrics["systems"].items()},
        "index_recall@100": metrics["index"][f"recall@{index_depth(corpus)}"]["value"],
        "absent": absent,
    } | ({"decided_by_ids": decided_by_ids} if decided_by_ids else {})


def _ties(tied: Mapping[str, Mapping[str, Mapping[str, TiedFigure]]]) -> dict[str, Any]:
    """Returns the field "ties" of metrics.json, with the systems that have some; empty if no system has."""
    tables = {
        system: {test: {metric: figure._asdict() for metric, figure in row.items()} for test, row in tests.items()}
        for system, tests in tied.items()
        if tests
    }
    return {"ties": tables} if tables else {}


def _check(arguments: EvaluateArguments) -> None:
    if arguments.k1 < 0 or not 0 <= arguments.b <= 1:
        raise InputError(f"--k1 must be >= 0 and --b in [0, 1], found {arguments.k1} and {arguments.b}")
    if arguments.dev_queries < 0:
        raise InputError(f"--dev-queries must be at least 0, found {arguments.dev_queries}")
    if not 0 <= arguments.rerank <= DEPTH:
        raise InputError(f"--rerank must lie in 0 to {DEPTH}, the depth of the search, found {arguments.rerank}")
    check_reranker(arguments.reranker, depth=arguments.rerank)
    if arguments.every_document and not arguments.rerank_by:
        raise InputError("--every-document needs a Poly-encoder; name its run with --rerank-by")
    if arguments.bootstrap_samples < 100:
        raise InputError(f"--bootstrap-samples must be at least 100, found {arguments.bootstrap_samples}")


def _inputs(arguments: EvaluateArguments) -> dict[str, str | None]:
    """Inputs that a manifest describes by their files; a hub name has none here."""
    return {
        "run": arguments.run if Path(arguments.run).exists() else None,
        "logs": arguments.logs,
        "document_embeddings": arguments.document_embeddings or None,
        "reranker": arguments.reranker or None,
        "rerank_by": arguments.rerank_by or None,
    }


def _recorded(arguments: EvaluateArguments) -> dict[str, Any]:
    """Returns the arguments that a manifest records. The file of BM25's results changes none of the figures."""
    return {name: value for name, value in vars(arguments).items() if name != "bm25_results"}


def _search(arguments: EvaluateArguments, logs: LogTables, corpus: Corpus, tests: Sequence[TestSet]) -> SearchResults:
    """Returns the documents that every system retrieves for the queries of the test sets."""
    from crops_jax.retrieval.scann_index import build_index

    queries = sorted({query for test in tests for query in test.grades})
    if not queries:
        raise InputError(f"{logs.path}: no test query has a relevant document among the documents; check their ids")
    reranker = open_reranker(logs, arguments.reranker) if arguments.rerank else None
    poly_encoder = open_poly_encoder(arguments.rerank_by) if arguments.rerank_by else None
    dev = _dev_queries(arguments, logs, corpus)
    say(f"{len(queries)} test queries, {len(corpus.doc_ids)} documents")
    encoder = open_encoder(arguments.run)
    vectors = document_vectors(
        encoder,
        corpus,
        embeddings=arguments.document_embeddings,
        logs=logs,
        run=arguments.run,
        dim=arguments.dim,
    )
    query_vectors = encoder.encode(queries, tower="query", dim=vectors.dim, progress=True)
    sample = encoder.encode(log_queries(logs, without=queries), tower="query", dim=vectors.dim)
    # The dev queries are encoded apart, because the last digits of a vector can depend on the other texts of a batch.
    dev_vectors = encoder.encode(dev.queries, tower="query", dim=vectors.dim) if dev.queries else query_vectors[:0]
    exact = search_exactly(np.concatenate([query_vectors, dev_vectors]), vectors, corpus)
    chosen = tune_bm25(dev, corpus) if arguments.tune_bm25 else Bm25Parameters(arguments.k1, arguments.b, {})
    parameters = {"k1": chosen.k1, "b": chosen.b}
    if arguments.bm25_results:
        bm25 = stored_bm25(Path(arguments.bm25_results), [*queries, *dev.queries], corpus, **parameters)
    else:
        bm25 = search_bm25([*queries, *dev.queries], corpus, **parameters)
    combined, combinations = fuse(exact, bm25, dev, corpus)
    exact, bm25 = exact.first(len(queries)), bm25.first(len(queries))
    if reranker is not None:
        combined[RERANKED], described = rerank(exact, queries, corpus, reranker, depth=arguments.rerank)
        combinations |= described
    if poly_encoder is not None:
        lists, described = score_by_poly_encoder(
            exact, queries, corpus, poly_encoder, every_document=arguments.every_document
        )
        combined, combinations = combined | lists, combinations | described
    say("building the index")
    depth = index_depth(corpus)
    index = build_index(vectors.array(), k=depth, sample_queries=sample)
    return SearchResults(
        corpus=corpus,
        queries=queries,
        encoder=exact,
        bm25=bm25,
        served=Retrieved(*index.search(query_vectors, depth)),
        index=index,
        vectors=vectors,
        combined=combined,
        combinations=combinations,
        bm25_parameters=chosen,
    )


def _dev_queries(arguments: EvaluateArguments, logs: LogTables, corpus: Corpus) -> DevQueries:
    dev = read_dev_queries(
        logs,
        corpus.doc_ids,
        run=arguments.run,
        limit=arguments.dev_queries,
        relevant_grade=arguments.relevant_grade,
    )
    if dev.absent:
        say(f"the weighted fusion is left out, because its weight cannot be chosen: {dev.absent}")
    return dev


def _setting(arguments: EvaluateArguments, results: SearchResults, trained: bool | None) -> dict[str, Any]:
    """Returns the description of the measurement: the system, the test sets and the settings."""
    bm25 = results.bm25_parameters
    return {
        "format": 1,
        "name": arguments.name or Path(arguments.run).name,
        "run": {
            "trained_on_this_split": trained,
            "trained": trained is not None,
            "dim": results.vectors.dim,
            "document_vectors": results.vectors.dtype,
        },
        "logs_fingerprint": artifacts.fingerprint(arguments.logs),
        "documents": len(results.corpus.doc_ids),
        "bm25": {"form": "lucene", "k1": bm25.k1, "b": bm25.b, "stop_words": "english", "stemmer": "english"}
        | ({"tuned": bm25.choice} if bm25.choice else {}),
        "bootstrap": {"samples": arguments.bootstrap_samples, "confidence": 0.95, "over": "queries"},
        "relevant_grade": arguments.relevant_grade,
        **results.combinations,
    }


def _figures(results: SearchResults, per_query: Mapping[str, Sequence[Value]], *, samples: int) -> dict[str, Any]:
    """Every figure, those of a random order for comparison, and what serving from the index costs."""
    return {
        "random": {f"recall@{k}": min(1.0, k / len(results.corpus.doc_ids)) for k in (10, 100)},
        **figure_tables(per_query, samples=samples),
        "index": index_gap(results.index, results.served, results.encoder, per_query, samples=samples),
    }


def _reranking_notes(results: SearchResults, tests: Sequence[TestSet]) -> list[str]:
    measured = "reranking" in results.combinations and any(test.name == "qr" for test in tests)
    return [reranking_note(results.combinations["reranking"])] if measured else []


if __name__ == "__main__":
    program.run(
        evaluate,
        example="python -m launch.evaluate --run run --logs split --output evaluation",
        uses_devices=True,
        then=(
            "launch.report {output} --output REPORT.html",
            "launch.search --run {run} --logs {logs} QUERY",
        ),
        device=True,
    )
