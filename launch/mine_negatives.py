"""Mines negatives with a model: the nearest documents of a query that are not known positives enter a label table.

For each query of LABELS that has a positive and a vector, the program ranks the documents by cosine, removes the known
positives of the query, selects at most --per-query documents of the ranks --skip + 1 to --top whose scores are below
the margin, and adds them at --level. launch.embed writes the vectors; this program encodes nothing. With --ranked-by
bm25, BM25 ranks the documents of --logs, and no vectors are needed.

Mining again during training, as ANCE does (arXiv 2007.00808), repeats these steps in a loop: train some steps, embed
with the run, mine from the labels that data.mine wrote (not from those of the last round, which would keep its stale
negatives), write records, and train a new run from the weights of the old one.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crops_jax import artifacts, program
from crops_jax.devices import processes
from crops_jax.errors import InputError
from crops_jax.hashing import id_hashes
from crops_jax.negatives import TriSampler
from crops_jax.program.progress import ProgressLine
from crops_jax.retrieval.hard_negatives import Selection
from crops_jax.retrieval.mapped import take_rows
from data.labels.table import check_mined_from, open_labels, read_queries
from data.tables import open_logs
from data.tables.files import named_read_errors
from launch.corpus.documents import Corpus, read_corpus
from launch.corpus.embedding_pair import EmbeddingPair, open_pair
from launch.evaluation.lineage import refuse_seen_answers
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
# Arguments that name a path that is an input already, or the memory, and do not change the result.
_NOT_WHAT = {"logs", "memory_limit"}


def mine_negatives(arguments: MineNegativesArguments) -> dict[str, Any]:
    """Adds the nearest documents of each query that are not known positives to a label table, as negatives.

    The vectors of an encoder run, or BM25, decide which documents are the nearest. The outcome line also has the share
    of the mined negatives that are relevant (false negatives), measured on judged pairs.
    """
    processes.refuse_several("launch.mine_negatives")
    inputs = {
        "labels": arguments.labels,
        "query_embeddings": arguments.query_embeddings or None,
        "document_embeddings": arguments.document_embeddings or None,
        # The key is not "logs", because that key names the logs that a label table was mined from.
        "judged_logs": arguments.logs,
    }
    artifacts.check_output(arguments.output, overwrite=arguments.overwrite, inputs=inputs)
    if arguments.document_embeddings:
        refuse_seen_answers(arguments.document_embeddings, arguments.labels)
    if arguments.logs is not None:
        check_mined_from(arguments.labels, arguments.logs)
    ranked = _open_ranked(arguments)
    recorded = {f.name: getattr(arguments, f.name) for f in fields(arguments) if f.name not in _NOT_WHAT}
    mined: dict[str, Any] = {}
    with (
        artifacts.output_directory(
            arguments.output,
            overwrite=arguments.overwrite,
            program="launch.mine_negatives",
            kind="labels",
            arguments=recorded,
            inputs=inputs,
            mined=mined,
        ) as out,
        open_labels(arguments.labels) as (connection, table),
        named_read_errors(table),
    ):
        labels = MinedLabels(
            connection,
            query_ids=ranked.query_ids,
            doc_ids=ranked.doc_ids,
            memory_limit=arguments.memory_limit,
            replace_negatives=arguments.replace_negatives,
            dev_fraction=arguments.dev_fraction,
        )
        mined.update(_mine(arguments, ranked, labels, out))
        sweep = Path(arguments.labels) / "alpha_sweep.json"
        if sweep.is_file():
            artifacts.write_text(out / sweep.name, sweep.read_text(encoding="utf-8"))
    return {"labels": arguments.output, **mined}


class _Ranked(NamedTuple):
    """The vectors of queries and documents; or, for BM25, the documents as texts."""

    vectors: EmbeddingPair | None
    corpus: Corpus | None
    query_ids: list[str]
    doc_ids: list[str]

    def queries(self, rows: np.ndarray, queries: list[str]) -> np.ndarray:
        """Returns some queries in the form that the corpus ranks for."""
        return np.array(queries, object) if self.vectors is None else take_rows(self.vectors.queries.shards, rows)


def _open_ranked(arguments: MineNegativesArguments) -> _Ranked:
    if arguments.ranked_by == "bm25":
        assert arguments.logs is not None
        corpus = read_corpus(open_logs(arguments.logs))
        return _Ranked(None, corpus, read_queries(arguments.labels), list(corpus.doc_ids))
    vectors = open_pair(arguments.query_embeddings, arguments.document_embeddings)
    return _Ranked(vectors, None, list(vectors.queries.ids), list(vectors.documents.ids))


def _mine(arguments: MineNegativesArguments, ranked: _Ranked, labels: MinedLabels, out: Path) -> dict[str, Any]:
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
    arguments: MineNegativesArguments, ranked: _Ranked, equals: np.ndarray | None
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
    ranked: _Ranked,
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


if __name__ == "__main__":
    program.run(
        mine_negatives,
        example="python -m launch.mine_negatives --labels labels --query-embeddings queries --document-embeddings "
        "documents --level 1 --relative-margin .05 --logs split --output mined",
        uses_devices=True,
        then=("data.write_records --labels {output} --logs SPLIT --output RECORDS",),
        device=True,
    )
