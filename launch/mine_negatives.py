"""Mines negatives with a model: the nearest documents of a query that are not known positives enter a label table.

For each query of LABELS that has a positive and a vector, the program ranks the documents by cosine, removes the known
positives of the query, selects at most --per-query documents of the ranks --skip + 1 to --top whose scores are below
the margin, and adds them at --level. launch.embed writes the vectors; this program encodes nothing.

Mining again during training, as ANCE does (arXiv 2007.00808), repeats these steps in a loop: train some steps, embed
with the run, mine from the labels that data.mine wrote (not from those of the last round, which would keep its stale
negatives), write records, and train a new run from the weights of the old one.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from crops_jax import artifacts, program
from crops_jax.devices import processes
from crops_jax.errors import InputError
from crops_jax.hashing import id_hashes
from crops_jax.labels import Level
from crops_jax.retrieval.hard_negatives import Selection
from crops_jax.retrieval.mapped import take_rows
from data.labels.table import check_mined_from, open_labels
from data.tables.files import named_read_errors
from launch.corpus.embedding_pair import EmbeddingPair, open_pair
from launch.evaluation.lineage import refuse_seen_answers
from launch.negatives.false_negatives import false_negative_rate
from launch.negatives.judged_pairs import JudgedLogs
from launch.negatives.mined_labels import MinedLabels, QueryCounts
from launch.negatives.neighbours import Block, NegativesCorpus, Tally, mine_block

# The number of queries whose rankings are searched together.
_BLOCK_QUERIES = 65_536
_SAMPLE_QUERIES = 256
# Arguments that name a path that is an input already, or the memory, and do not change the result.
_NOT_WHAT = {"logs", "memory_limit"}


@dataclass(frozen=True, kw_only=True)
class MineNegativesArguments:
    labels: str
    """The directory of the label table, as data.mine writes it."""
    query_embeddings: str
    """The vectors of the queries of LABELS, from launch.embed --texts LABELS --tower query."""
    document_embeddings: str
    """The vectors of the documents by the same run, from launch.embed --texts LOGS --tower document."""
    output: str
    """The directory for the label table with the mined rows added."""
    overwrite: bool = False
    """Replaces the output if it exists."""
    level: int
    """The level of mined negatives: 0, 1, 2 or 3. A document that already has a higher level keeps it."""
    top: int = Selection.top
    """The last rank that is considered. Ranks count from 1 and omit known positives."""
    skip: int = Selection.skip
    """The number of first ranks that are skipped, because the most probable false negatives have the first ranks."""
    per_query: int = Selection.per_query
    """The maximum number of new negatives of a query."""
    sampling: Literal["top", "random"] = Selection.sampling
    """With "top", the first of the considered ranks are selected. With "random", documents are drawn from all
    considered ranks by --seed."""
    absolute_margin: float | None = Selection.absolute_margin
    """The score of a negative must be below that of the positive by more than this difference."""
    relative_margin: float | None = Selection.relative_margin
    """The score of a negative must be below that of the positive by more than this share of it, such as .05."""
    margin_to: Literal["best", "least"] = Selection.margin_to
    """The positive from which margins are measured: the one with the best score, or the one with the least score, so
    that the margins hold for every positive."""
    seed: int = Selection.seed
    """The seed of --sampling random."""
    logs: str | None = None
    """The log tables that LABELS were mined from. Their judgements of split train show how many of the mined negatives
    are false."""
    relevant_grade: float | None = None
    """The minimum grade in --logs of a relevant document. By default every grade above 0 is relevant."""
    exclude_same_text: bool = False
    """Treats documents of --logs that have the same text as a positive as positives too."""
    missing_queries: Literal["refuse", "count"] = "refuse"
    """The treatment of queries of LABELS that have no vector. With "refuse", the program ends with an error. With
    "count", it leaves them out and counts them."""
    search: Literal["exact", "scann"] = "exact"
    """The search method. scann is faster on large corpora but misses some neighbours; it holds all vectors in memory,
    and two runs can differ."""
    memory_limit: str = "1GB"
    """The limit of DuckDB's memory, such as 4GB; more is spilled to disk."""

    def __post_init__(self) -> None:
        if not Level.IN_BATCH_NEGATIVE <= self.level <= Level.SHOWN_NOT_CLICKED:
            raise ValueError(f"--level must be that of a negative, 0 to 3, found {self.level}")
        if self.exclude_same_text and self.logs is None:
            raise ValueError("--exclude-same-text needs --logs, where the texts are")
        if self.relevant_grade is not None and self.logs is None:
            raise ValueError("--relevant-grade needs --logs, where the judgements are")
        _ = self.selection

    @property
    def selection(self) -> Selection:
        return Selection(**{field.name: getattr(self, field.name) for field in fields(Selection)})


def mine_negatives(arguments: MineNegativesArguments) -> dict[str, Any]:
    """Adds the nearest documents of each query that are not known positives to a label table, as negatives.

    The vectors of an encoder run decide which documents are the nearest. The outcome line also has the share of the
    mined negatives that are relevant (false negatives), measured on judged pairs.
    """
    processes.refuse_several("launch.mine_negatives")
    inputs = {
        "labels": arguments.labels,
        "query_embeddings": arguments.query_embeddings,
        "document_embeddings": arguments.document_embeddings,
        # The key is not "logs", because that key names the logs that a label table was mined from.
        "judged_logs": arguments.logs,
    }
    artifacts.check_output(arguments.output, overwrite=arguments.overwrite, inputs=inputs)
    refuse_seen_answers(arguments.document_embeddings, arguments.labels)
    if arguments.logs is not None:
        check_mined_from(arguments.labels, arguments.logs)
    vectors = open_pair(arguments.query_embeddings, arguments.document_embeddings)
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
            query_ids=vectors.queries.ids,
            doc_ids=vectors.documents.ids,
            memory_limit=arguments.memory_limit,
        )
        mined.update(_mine(arguments, vectors, labels, out))
        sweep = Path(arguments.labels) / "alpha_sweep.json"
        if sweep.is_file():
            artifacts.write_text(out / sweep.name, sweep.read_text(encoding="utf-8"))
    return {"labels": arguments.output, **mined}


def _mine(arguments: MineNegativesArguments, vectors: EmbeddingPair, labels: MinedLabels, out: Path) -> dict[str, Any]:
    query_counts = labels.query_counts()
    _check_counts(arguments, query_counts)
    judged = None
    if arguments.logs is not None:
        judged = JudgedLogs(arguments.logs, labels.connection, with_texts=arguments.exclude_same_text)
        judged.check_corpus(arguments.document_embeddings)
    equals = judged.equal_texts() if judged is not None and arguments.exclude_same_text else None
    corpus = NegativesCorpus(
        vectors.documents,
        search=arguments.search,
        equals=equals,
        sample_queries=_sample(vectors),
        depth=arguments.top,
    )
    tally = _mine_all(arguments.selection, vectors, labels, corpus, pairs=query_counts.queries * corpus.count)
    counts = labels.write(out, level=arguments.level)
    mined = counts.pop("new")
    return {
        "rows": counts.pop("rows"),
        "mined": mined,
        "level": arguments.level,
        **counts,
        "queries": query_counts.queries,
        "queries_without_positive": query_counts.without_positive,
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


def _mine_all(
    selection: Selection, vectors: EmbeddingPair, labels: MinedLabels, corpus: NegativesCorpus, *, pairs: int
) -> Tally:
    tally = Tally(selection)
    with tqdm(total=pairs, desc="mining", unit=" pairs", unit_scale=True, delay=1) as bar:
        for first, rows, queries, labelled in labels.blocks(_BLOCK_QUERIES):
            block = Block(take_rows(vectors.queries.shards, rows), id_hashes(queries), labelled)
            for negatives in mine_block(block, corpus, selection, tally, progress=bar.update):
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
    )
