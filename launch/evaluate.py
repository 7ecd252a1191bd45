"""Builds the index of an encoder and measures what it finds, BM25 beside it."""

from crops_jax.devices.process_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # before NumPy starts a thread

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from crops_jax import artifacts, program
from crops_jax.devices import processes
from crops_jax.embeddings import Embeddings
from crops_jax.errors import InputError
from crops_jax.retrieval.bm25 import Bm25
from crops_jax.retrieval.evaluation import values
from crops_jax.retrieval.exact import local_mesh
from crops_jax.retrieval.mapped import mapped_top_k
from crops_jax.retrieval.scann_index import Index, build_index
from crops_jax.runs.encoder import open_encoder
from data.tables import open_logs
from launch.corpus.documents import Corpus, document_vectors, read_corpus
from launch.evaluation.files import write_per_query, write_relevant, write_retrieved
from launch.evaluation.lineage import programs_of, trained_on
from launch.evaluation.metrics import Found, figure_tables, headline, index_gap
from launch.evaluation.test_sets import log_queries, read_held_out

# The deepest metric is at 100; residual rankings, which leave documents out, are filled from below.
_DEPTH = 200
_INDEX_DEPTH = 100


@dataclass(frozen=True, kw_only=True)
class Arguments:
    run: str
    """A run of launch.train, or the folder or hub name of an untrained encoder."""
    logs: str
    """SPLIT: log tables with test_clicks, test_reformulations, or judgements of split = test."""
    output: str
    """EVAL: metrics.json, per_query.parquet, retrieved.parquet, relevant.parquet and index/."""
    document_embeddings: str = ""
    """Vectors of the documents from launch.embed; default: they are computed."""
    dim: int | None = None
    """So many leading components of each vector; default: those of --document-embeddings, or all."""
    name: str = ""
    """What tables and pages call this system; default: the folder's name."""
    k1: float = 1.2
    """BM25: saturation of term frequency."""
    b: float = 0.75
    """BM25: share of length normalisation."""
    relevant_grade: float | None = None
    """Least grade of a relevant judgement; default: every grade above 0."""
    bootstrap_samples: int = 2000
    """Samples of each interval."""
    overwrite: bool = False
    """Replaces what is at --output."""


def evaluate(arguments: Arguments) -> dict[str, Any]:
    """Measures a retriever on what was held out: later clicks (CT), later reformulations (QR), test judgements.

    Writes each figure with its number of queries and a bootstrap interval, queries and pairs that the log already
    holds apart from those that it does not, BM25 on the same queries, and the gap between the index and exact search.
    """
    processes.refuse_several("launch.evaluate")
    _check(arguments)
    # Inputs that a manifest describes by their files; a hub name has none here.
    inputs = {
        "run": arguments.run if Path(arguments.run).exists() else None,
        "logs": arguments.logs,
        "document_embeddings": arguments.document_embeddings or None,
    }
    artifacts.check_output(arguments.output, overwrite=arguments.overwrite, inputs=inputs)
    logs = open_logs(arguments.logs)
    trained = trained_on(arguments.run, arguments.logs)
    corpus = read_corpus(logs)
    tests, absent = read_held_out(logs, corpus.doc_ids, relevant_grade=arguments.relevant_grade)
    queries = sorted({query for test in tests for query in test.grades})
    if not queries:
        raise InputError(f"{logs.path}: no test query has a relevant document among the documents; check their ids")
    _say(f"{len(queries)} test queries, {len(corpus.doc_ids)} documents")

    encoder = open_encoder(arguments.run)
    vectors = document_vectors(
        encoder,
        corpus,
        embeddings=arguments.document_embeddings,
        logs=logs,
        run=arguments.run,
        dim=arguments.dim,
    )
    asked = encoder.encode(queries, tower="query", dim=vectors.dim, progress=True)
    sample = encoder.encode(log_queries(logs, without=queries), tower="query", dim=vectors.dim)
    found = {
        "encoder": _search_exactly(asked, vectors, corpus),
        "bm25": _search_words(queries, corpus, k1=arguments.k1, b=arguments.b),
    }
    _say("building the index")
    depth = min(_INDEX_DEPTH, len(corpus.doc_ids))
    index = build_index(vectors.array(), k=depth, sample_queries=sample)
    served = Found(*index.search(asked, depth))

    rankings = {system: _rankings(queries, answer, corpus) for system, answer in {**found, "index": served}.items()}
    per_query = {
        system: [value for test in tests for value in values(test, ranked)] for system, ranked in rankings.items()
    }
    metrics = {
        "format": 1,
        "name": arguments.name or Path(arguments.run).name,
        "run": {
            "trained_on_this_split": trained,
            "trained": trained is not None,
            "dim": vectors.dim,
            "document_vectors": vectors.dtype,
        },
        "logs_fingerprint": artifacts.fingerprint(arguments.logs),
        "documents": len(corpus.doc_ids),
        "bm25": {"form": "lucene", "k1": arguments.k1, "b": arguments.b, "stop_words": "english", "stemmer": "english"},
        "bootstrap": {"samples": arguments.bootstrap_samples, "confidence": 0.95, "over": "queries"},
        "relevant_grade": arguments.relevant_grade,
        "tests": {test.name: dict(test.counts) for test in tests} | {k: {"absent": why} for k, why in absent.items()},
        "random": {f"recall@{k}": min(1.0, k / len(corpus.doc_ids)) for k in (10, 100)},
        **figure_tables(per_query, samples=arguments.bootstrap_samples),
        "index": index_gap(index, served, found["encoder"], per_query, samples=arguments.bootstrap_samples),
        "notes": _notes(arguments, index, trained),
    }
    with artifacts.output_directory(
        arguments.output,
        overwrite=arguments.overwrite,
        program="launch.evaluate",
        kind="evaluation",
        arguments=arguments if inputs["run"] else {**vars(arguments), "hub_name": arguments.run},
        inputs=inputs,
    ) as output:
        artifacts.write_text(
            output / "metrics.json", json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        )
        write_per_query(output, {system: per_query[system] for system in found})
        answers = {
            system: dict(zip(queries, zip(*answer, strict=True), strict=True)) for system, answer in found.items()
        }
        write_retrieved(output, tests, corpus, answers)
        write_relevant(output, tests, corpus, rankings)
        index.save(output / "index")
        pq.write_table(
            pa.table({"doc_id": pa.array(corpus.doc_ids, pa.string()), "title": pa.array(corpus.titles, pa.string())}),
            output / "index" / "documents.parquet",
        )
    return {
        "output": arguments.output,
        "name": metrics["name"],
        "metrics": {system: headline(tables) for system, tables in metrics["systems"].items()},
        "index_recall@100": metrics["index"][f"recall@{depth}"]["value"],
        "absent": absent,
    }


def _check(arguments: Arguments) -> None:
    if arguments.k1 < 0 or not 0 <= arguments.b <= 1:
        raise InputError(f"--k1 must be >= 0 and --b in [0, 1], found {arguments.k1} and {arguments.b}")
    if arguments.bootstrap_samples < 100:
        raise InputError(f"--bootstrap-samples must be at least 100, found {arguments.bootstrap_samples}")


def _search_exactly(asked: np.ndarray, vectors: Embeddings, corpus: Corpus) -> Found:
    depth = min(_DEPTH, len(corpus.doc_ids))
    pairs = len(asked) * len(corpus.doc_ids)
    with tqdm(total=pairs, desc="exact search", unit=" pairs", unit_scale=True) as bar:
        found = mapped_top_k(asked, vectors.shards, depth, order=corpus.order, mesh=local_mesh(), progress=bar.update)
    return Found(*found)


def _search_words(queries: Sequence[str], corpus: Corpus, *, k1: float, b: float) -> Found:
    index, order = Bm25(corpus.texts, k1=k1, b=b), corpus.order
    parts = [
        index.search(queries[start : start + 64], min(_DEPTH, len(corpus.doc_ids)), order=order)
        for start in tqdm(range(0, len(queries), 64), desc="BM25", unit="batch")
    ]
    return Found(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _rankings(queries: Sequence[str], found: Found, corpus: Corpus) -> dict[str, list[str]]:
    rows = zip(queries, found.indices, strict=True)
    return {query: [corpus.doc_ids[int(at)] for at in row if at >= 0] for query, row in rows}


def _notes(arguments: Arguments, index: Index, trained: bool | None) -> list[str]:
    notes = []
    programs = programs_of(arguments.logs)
    if "data.simulate" in programs:
        notes.append("The logs are those of a simulated world: the figures compare mechanisms, not products.")
    if _discriminator_kind(arguments.logs) == "lexical":
        notes.append(
            "Reformulation positives (QR) were chosen by the lexical discriminator, which favours documents that share "
            "words with the query, so QR is kind to BM25 and partly circular for mined positives."
        )
    if index.settings["kind"] == "exact":
        notes.append(index.settings["reason"] + ".")
    if trained is False:
        notes.append("The run was not trained on labels of this SPLIT; seen and unseen are told by this SPLIT's log.")
    if trained is None:
        notes.append("No manifest says what the encoder was trained on; whether it saw the test period is not known.")
    return notes


def _discriminator_kind(logs: str) -> str | None:
    file = Path(logs) / "discriminator" / "discriminator.json"
    try:
        return json.loads(file.read_text()).get("kind") if file.is_file() else None
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error}); hold out again") from error


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    program.run(evaluate, example="python -m launch.evaluate --run run --logs split --output evaluation")
