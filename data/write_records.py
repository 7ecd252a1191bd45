"""Writes the training records of a label table: sharded TFRecords of tokens and labels, with their tokenizer."""

import dataclasses
import functools
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int64

from crops_jax import artifacts, program, records
from crops_jax.discriminator import Discriminator
from crops_jax.pretrained import folder
from crops_jax.program.progress import ProgressLine, say
from crops_jax.records import dataset_info
from crops_jax.text import tokenizer
from crops_jax.text.tokenizer import Tokenizer
from crops_jax.text.wordpiece import learn_wordpiece
from data.backends.spark_errors import named_spark_errors
from data.labels.table import check_labels, check_mined_from, read_labels
from data.mining.scores import forget, remembering
from data.records.all_documents import write_all_documents
from data.records.arguments import WriteRecordsArguments
from data.records.builder import (
    NO_SCORES,
    BuiltRecords,
    RecordBuilder,
    RecordWorker,
    SomeQueries,
    keep_arrays,
    nothing_to_train_on,
    text_counts,
    token_file,
    with_positive,
)
from data.records.document_tokens import DocumentTokenizer, DocumentTokens, document_texts, tokenize_documents
from data.records.label_groups import LabelGroups, choose_texts, dev_threshold, group_labels
from data.records.scores import open_teacher, scores_of_texts
from data.records.worker_processes import usable_cores, worker_processes
from data.tables import LogTables, open_logs
from data.tables.duckdb_session import named_lack_of_room
from data.tables.files import TableFiles
from data.tables.knowledge_documents import check_same_documents, missing_documents, open_written_documents
from data.tables.quarantine import beside

TOKENIZER = "tokenizer"
_QUERIES_PER_BATCH = 2048
_MIN_ROWS_FOR_WORKERS = 100_000
"""The number of labels and documents below which worker processes take longer to start than they save."""
_EXECUTION_ARGUMENTS = ("workers", "backend", "spark_master")
"""The arguments that change how the records are written, but not their content."""


def write_records(arguments: WriteRecordsArguments) -> dict[str, Any]:
    """Writes the training records of a label table. A record is one query with the tokens of some of its documents."""
    check_mined_from(arguments.labels, arguments.logs)
    check_same_documents(arguments.labels, arguments.knowledge_documents)
    artifacts.check_output(arguments.output, overwrite=arguments.overwrite, inputs={"logs": arguments.logs})
    teacher = None
    if arguments.discriminator is not None:
        teacher = open_teacher(arguments.discriminator, labels=arguments.labels, logs=arguments.logs)
    logs = open_logs(arguments.logs, on_bad_rows=arguments.on_bad_rows, quarantine=beside(arguments.output))
    tables = [logs]
    if arguments.knowledge_documents is not None:
        tables.insert(0, open_written_documents(arguments.knowledge_documents, logs=logs))
    if arguments.backend == "pyspark":
        write = functools.partial(_write_with_spark, arguments, tables, check_labels(arguments.labels))
    else:
        write = functools.partial(_write, arguments, tables, group_labels(read_labels(arguments.labels)), teacher)
    tokenizer_fields: dict[str, Any] = {}
    with (
        artifacts.output_directory(
            arguments.output,
            overwrite=arguments.overwrite,
            program="data.write_records",
            kind="records",
            arguments={
                name: value for name, value in dataclasses.asdict(arguments).items() if name not in _EXECUTION_ARGUMENTS
            },
            inputs={
                "labels": arguments.labels,
                "logs": arguments.logs,
                "knowledge_documents": arguments.knowledge_documents,
                "discriminator": arguments.discriminator,
                "vocabulary_from": arguments.vocabulary_from,
            },
            tokenizer=tokenizer_fields,
        ) as directory,
        named_lack_of_room(),
    ):
        tokens = _write_tokenizer(arguments, tables, directory / TOKENIZER)
        tokenizer_fields.update(fingerprint=tokens.fingerprint, vocabulary_size=tokens.vocabulary_size)
        outcome = write(tokens, directory)
    if teacher is not None:
        forget(output=arguments.output, score_cache=None)
        outcome |= _without_dev(arguments, outcome)
    return {"records": arguments.output, "vocabulary_size": tokens.vocabulary_size, **outcome, **logs.outcome}


def split_queries(
    groups: LabelGroups, has_documents: Bool[np.ndarray, "queries"], *, dev_fraction: float
) -> Bool[np.ndarray, "queries"]:
    """Returns a mask of the dev queries, whose hashes are in the lowest part of the range.

    Only queries that have a document with a text get a record. If dev_fraction is above 0 and there are at least two
    of them, both splits get one: if dev has none, it gets the one of the lowest hash that has a positive (or that of
    the lowest hash); if train has none, it gets the one of the highest hash. If there is only one, train gets it.

    Args:
      groups: the labels by query.
      has_documents: a mask of the queries that have a document with a text.
      dev_fraction: the share of dev.
    """
    is_dev = groups.query_hashes < np.uint64(dev_threshold(dev_fraction))
    written = np.flatnonzero(has_documents)
    if dev_fraction > 0 and len(written):
        if not is_dev[written].any() and len(written) > 1:
            is_dev[written[with_positive(groups)[written].argmax()]] = True
        if is_dev[written].all():
            is_dev[written[-1]] = False
    return is_dev


def _without_dev(arguments: WriteRecordsArguments, outcome: dict[str, Any]) -> dict[str, str]:
    """Returns why the records lack the split dev, as a field of the outcome; empty if they do not."""
    if outcome.get("dev") or not arguments.dev_fraction:
        return {}
    reason = "only one query has a document with a text"
    say(f"there is no split dev, since {reason}: a run has no dev recall and keeps no best step")
    return {"without_dev": reason}


def _write_tokenizer(arguments: WriteRecordsArguments, tables: list[LogTables], directory: Path) -> Tokenizer:
    if arguments.tokenizer is not None:
        return tokenizer.copy(folder.locate(arguments.tokenizer), directory)
    if arguments.vocabulary_from is not None:
        tables = [open_logs(arguments.vocabulary_from)]
    say("learning a vocabulary from the documents")
    learnt = learn_wordpiece(lambda: document_texts(tables), vocabulary_size=arguments.vocabulary_size)
    return tokenizer.save(learnt, directory)


def _write_with_spark(
    arguments: WriteRecordsArguments,
    tables: list[LogTables],
    labels: tuple[TableFiles, pa.Table],
    tokens: Tokenizer,
    directory: Path,
) -> dict[str, Any]:
    from data.records.spark import write_with_spark

    shards = _num_shards(arguments)
    read = [labels[0], *(files for logs in tables for files in logs.tables.values())]
    with named_spark_errors(read):
        return write_with_spark(arguments, labels, tables, tokenizer=tokens, directory=directory, num_shards=shards)


def _write(
    arguments: WriteRecordsArguments,
    tables: list[LogTables],
    groups: LabelGroups,
    teacher: Discriminator | None,
    tokens: Tokenizer,
    directory: Path,
) -> dict[str, Any]:
    workers = arguments.workers or _worthwhile_workers(groups)
    with tempfile.TemporaryDirectory(prefix=".arrays-", dir=directory) as name:
        arrays = Path(name)
        worker = RecordWorker(
            documents=DocumentTokenizer(tokenizer=tokens, max_tokens=arguments.max_tokens),
            records=RecordBuilder(folder=arrays, tokenizer=tokens, max_query_tokens=arguments.max_query_tokens),
        )
        with worker_processes(worker, workers=workers) as mapped:
            texts = tokenize_documents(tables, groups.doc_ids, tokenize=mapped, file=token_file(arrays))
            score = None if teacher is None else functools.partial(_scores, arguments, tables, groups, teacher)
            outcome = _write_splits(arguments, groups, texts, score, directory, arrays, mapped)
            if not arguments.all_documents:
                return outcome
            shards, scored = arguments.num_shards, teacher is not None
            return outcome | write_all_documents(
                tables[-1], directory, tokenize=mapped, num_shards=shards, scored=scored
            )


def _scores(
    arguments: WriteRecordsArguments,
    tables: list[LogTables],
    groups: LabelGroups,
    teacher: Discriminator,
    chosen: Bool[np.ndarray, "rows"],
) -> Float32[np.ndarray, "rows"]:
    """Returns theta of the rows whose texts are written. What is scored is kept until all records are written."""
    return scores_of_texts(tables, groups, chosen, remembering(teacher, output=arguments.output, score_cache=None))


def _write_splits(
    arguments: WriteRecordsArguments,
    groups: LabelGroups,
    texts: DocumentTokens,
    score: Callable[[Bool[np.ndarray, "rows"]], Float32[np.ndarray, "rows"]] | None,
    directory: Path,
    arrays: Path,
    build: Callable[[Iterable[SomeQueries]], Iterator[BuiltRecords]],
) -> dict[str, Any]:
    _check_written_documents(arguments, groups, texts)
    has_text = (texts.lengths > 0)[groups.documents]
    chosen = choose_texts(groups, has_text, documents_per_query=arguments.documents_per_query, seed=arguments.seed)
    has_documents = np.bincount(groups.row_queries[chosen], minlength=len(groups.queries)) > 0
    is_dev = split_queries(groups, has_documents, dev_fraction=arguments.dev_fraction)
    if not (has_documents & ~is_dev).any():
        raise nothing_to_train_on(arguments.labels, arguments.logs)
    scores = NO_SCORES if score is None else score(chosen)
    keep_arrays(arrays, groups, texts, chosen, scores)
    splits = {"train": np.flatnonzero(has_documents & ~is_dev), "dev": np.flatnonzero(has_documents & is_dev)}
    shards = _num_shards(arguments)
    cut = sum(
        _write_split(directory, split, groups, numbers, build, num_shards=shards[split])
        for split, numbers in splits.items()
        if len(numbers)
    )
    return {
        **{split: len(numbers) for split, numbers in splits.items()},
        "queries": len(groups.queries),
        "queries_left_out_without_text": int((~has_documents).sum()),
        "labels": len(groups.levels),
        "greatest_labels_of_a_query": int(np.diff(groups.bounds).max()),
        "documents": len(groups.doc_ids),
        "documents_unknown": int((~texts.known).sum()),
        "documents_without_text": int((texts.known & (texts.lengths == 0)).sum()),
        "documents_cut": texts.cut,
        **text_counts(groups, has_text, chosen, queries_cut=cut),
        **({} if score is None else {"labels_scored": int((~np.isnan(scores)).sum())}),
    }


def _num_shards(arguments: WriteRecordsArguments) -> dict[str, int]:
    return {"train": arguments.num_shards, "dev": max(1, round(arguments.num_shards * arguments.dev_fraction))}


def _worthwhile_workers(groups: LabelGroups) -> int:
    # Sending tasks keeps one core busy: on two cores, two workers were slower than none (benchmarks/record_writing.py).
    return max(1, usable_cores() - 1) if len(groups.levels) + len(groups.doc_ids) >= _MIN_ROWS_FOR_WORKERS else 1


def _check_written_documents(arguments: WriteRecordsArguments, groups: LabelGroups, texts: DocumentTokens) -> None:
    """Raises InputError if labels name documents of a language model that no table has."""
    missing = np.flatnonzero(groups.written & ~texts.known)
    if len(missing):
        examples = groups.doc_ids.take(pa.array(missing[:3])).to_pylist()
        raise missing_documents(
            labels=arguments.labels,
            logs=arguments.logs,
            knowledge_documents=arguments.knowledge_documents,
            number=len(missing),
            examples=examples,
        )


def _write_split(
    directory: Path,
    split: str,
    groups: LabelGroups,
    numbers: Int64[np.ndarray, "queries"],
    build: Callable[[Iterable[SomeQueries]], Iterator[BuiltRecords]],
    *,
    num_shards: int,
) -> int:
    """Writes the records of these queries and returns the number of queries that were cut."""
    bounds = records.shard_bounds(len(numbers), num_shards)
    shards = [
        [numbers[start : min(start + _QUERIES_PER_BATCH, last)] for start in range(first, last, _QUERIES_PER_BATCH)]
        for first, last in itertools.pairwise(bounds)
    ]
    built = build(SomeQueries([groups.queries[i] for i in indices], indices) for shard in shards for indices in shard)
    cuts: list[int] = []

    def encoded() -> Iterator[records.EncodedRecords]:
        for part, cut in built:
            cuts.append(cut)
            bar.update(len(part.sizes))
            yield part

    with ProgressLine(total=len(numbers), desc=f"writing {split}", unit="queries") as bar:
        parts = encoded()
        infos = [
            records.write_shard(directory / name, itertools.islice(parts, len(shard)))
            for name, shard in zip(dataset_info.shard_names(split, len(shards)), shards, strict=True)
        ]
    records.add_split(directory, infos, split=split)
    return sum(cuts)


if __name__ == "__main__":
    program.run(
        write_records,
        example="python -m data.write_records --labels labels --logs split --output records --vocabulary-size 4096",
        then=("launch.train CONFIG --records {output} --output RUN",),
        device=True,
    )
