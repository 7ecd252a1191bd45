"""Ranks the documents for each query of a label table and adds those that are selected as negatives."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crops_jax.errors import InputError
from crops_jax.hashing import id_hashes
from crops_jax.negatives import TriSampler
from crops_jax.program.progress import ProgressLine
from crops_jax.retrieval.hard_negatives import Selection
from crops_jax.retrieval.mapped import take_rows
from data.labels.table import read_queries
from data.tables import open_logs
from launch.corpus.documents import Corpus, read_corpus
from launch.corpus.embedding_pair import EmbeddingPair, open_pair
from launch.negatives.arguments import MineNegativesArguments
from launch.negatives.false_negatives import false_negative_rate
from launch.negatives.judged_pairs import JudgedLogs
from launch.negatives.lexical_ranking import LexicalCorpus
from launch.negatives.mined_labels import MinedLabels, QueryCounts
from launch.negatives.neighbours import Block, NegativesCorpus, RankedCorpus, mine_block
from launch.negatives.score_sampling import ScoreSampler
from launch.negatives.tally import Tally

# The number of queries whose rankings are searched together.
_BLOCK_QUERIES = 65_536
_SAMPLE_QUERIES = 256


class Ranked(NamedTuple):
    """The queries and documents of a ranking: vectors; or, for BM25, the texts of the documents."""

    vectors: EmbeddingPair | None
    corpus: Corpus | None
    query_ids: list[str]
    doc_ids: list[str]

    def queries(self, rows: np.ndarray, queries: list[str]) -> np.ndarray:
        """Returns some queries in the form that the corpus ranks for."""
        return np.array(queries, object) if self.vectors is None else take_rows(self.vectors.queries.shards, rows)


def open_ranked(arguments: MineNegativesArguments) -> Ranked:
    """Opens the vectors of the queries and documents, or reads the documents that BM25 ranks."""
    if arguments.ranked_by == "bm25":
        assert arguments.logs is not None
        corpus = read_corpus(open_logs(arguments.logs))
        return Ranked(None, corpus, read_queries(arguments.labels), list(corpus.doc_ids))
    vectors = open_pair(arguments.query_embeddings, arguments.document_embeddings)
    return Ranked(vectors, None, list(vectors.queries.ids), list(vectors.documents.ids))


def mine(arguments: MineNegativesArguments, ranked: Ranked, labels: MinedLabels, out: Path) -> dict[str, Any]:
    """Writes LABELS with the mined negatives into `out`, and returns the fields of the outcome line."""
    query_counts = labels.query_counts()
    _check_counts(arguments, query_counts)
    judged = None
    if arguments.logs is not None:
        judged = JudgedLogs(arguments.logs, labels.connection, with_texts=arguments.exclude_same_text)
        if arguments.document_embeddings:
            judged.check_corpus(arguments.document_embeddings)
    equals = judged.equal_texts() if judged is not None and arguments.exclude_same_text else None
    corpus, sampler = _corpus(arguments, ranked, equals)
    pairs = query_counts.queries * corpus.count
    tally = _mine_all(arguments.selection, ranked, labels, corpus, sampler=sampler, pairs=pairs)
    counts = labels.write(out, level=arguments.level)
    mined = counts.pop("new")
    return {
        "rows": counts.pop("rows"),
        "mined": mined,
        "level": arguments.level,
        **counts,
        "queries": query_counts.queries,
        "queries_without_positive": query_counts.without_positive,
        **({"dev_queries": query_counts.dev} if arguments.dev_fraction else {}),
        "queries_without_vector": query_counts.missing,
        "positives_without_vector": query_counts.unembedded_positives,
        "documents": corpus.count,
        **tally.outcome(),
        "search": corpus.settings,
        "by_source": labels.histogram(out, "source"),
        "by_level": labels.histogram(out, "level"),
        "false_negatives": false_negative_rate(
            [] if judged is None else judged.of_mined(),
            mined=mined,
            relevant_grade=arguments.relevant_grade,
            absent="no --logs was given" if judged is None else judged.absent,
        ),
    }


def _corpus(
    arguments: MineNegativesArguments, ranked: Ranked, equals: np.ndarray | None
) -> tuple[RankedCorpus, ScoreSampler | None]:
    """Returns the documents that are ranked, and the sampler of their scores if there is one."""
    if ranked.vectors is None:
        assert ranked.corpus is not None
        return LexicalCorpus(ranked.corpus, equals=equals), None
    corpus = NegativesCorpus(
        ranked.vectors.documents,
        search=arguments.search,
        equals=equals,
        sample_queries=_sample(ranked.vectors),
        depth=arguments.top,
    )
    if arguments.sampler is None:
        return corpus, None
    between = corpus.between if isinstance(arguments.sampler, TriSampler) else None
    return corpus, ScoreSampler(
        sampler=arguments.sampler, temperature=arguments.temperature, seed=arguments.seed, between=between
    )


def _mine_all(
    selection: Selection,
    ranked: Ranked,
    labels: MinedLabels,
    corpus: RankedCorpus,
    *,
    sampler: ScoreSampler | None,
    pairs: int,
) -> Tally:
    tally = Tally(selection)
    with ProgressLine(total=pairs, desc="mining", unit="pairs") as bar:
        for first, rows, queries, labelled in labels.blocks(_BLOCK_QUERIES):
            block = Block(ranked.queries(rows, queries), id_hashes(queries), labelled)
            for negatives in mine_block(block, corpus, selection, tally, sampler=sampler, progress=bar.update):
                labels.add(
                    place=first + negatives.query,
                    document=negatives.document,
                    score=negatives.score,
                    new=negatives.new,
                )
    return tally


def _check_counts(arguments: MineNegativesArguments, counts: QueryCounts) -> None:
    if counts.missing and arguments.missing_queries == "refuse":
        raise InputError(
            f"--query-embeddings {arguments.query_embeddings}: {counts.missing} queries of {arguments.labels} have no "
            f"vector, {counts.first_missing!r} the first; embed them with launch.embed --texts {arguments.labels} "
            "--tower query (an id is the normalised query), or leave them out with --missing-queries count"
        )
    if not counts.queries:
        raise InputError(
            f"{arguments.labels}: no query has both a positive and a vector in {arguments.query_embeddings}, so there "
            "is nothing to mine for; mine positives first, and embed the queries of these labels"
        )
    if counts.indexed and not counts.embedded:
        raise InputError(
            f"--document-embeddings {arguments.document_embeddings}: none of the {counts.indexed} labelled documents "
            f"of {arguments.labels} is among these, so no positive would be known; embed the documents of the logs "
            "that the labels were mined from"
        )


def _sample(vectors: EmbeddingPair) -> np.ndarray:
    """Returns the vectors of evenly spaced queries, on which ScaNN is tuned."""
    count = len(vectors.queries.ids)
    return take_rows(vectors.queries.shards, np.unique(np.linspace(0, count - 1, _SAMPLE_QUERIES).astype(np.int64)))
