"""Label table to training records: sharded TFRecords of tokens and labels, with their tokenizer."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from tqdm import tqdm

from crops_jax import artifacts, model_folder, program, records, tokenizer
from crops_jax.errors import InputError
from crops_jax.labels import Level
from crops_jax.tokenizer import Tokenizer
from crops_jax.wordpiece import learn_wordpiece
from data.document_tokens import DocumentTokens, document_texts, tokenize_documents
from data.label_groups import LabelGroups, choose_texts, group_labels
from data.label_table import check_mined_from, read_labels
from data.tables import LogTables, open_logs

TOKENIZER = "tokenizer"
_QUERIES_AT_ONCE = 4096
_GREATEST = 10_000_000
"""Of the sizes on the command line: more is a slip, and the vocabulary's trainer asks for its memory at once."""


@dataclass(frozen=True, kw_only=True)
class WriteRecordsArguments:
    """What to write records of, and how much of it."""

    labels: str
    """Directory with the label table, as data.mine writes it."""
    logs: str
    """The log tables that the labels were mined from; the texts come from there."""
    output: str
    """Directory for the records."""
    overwrite: bool = False
    """Replace what is there."""
    tokenizer: str | None = None
    """A Hugging Face tokenizer folder, or the name of a hub repository; without it a WordPiece vocabulary is learnt
    from the documents."""
    vocabulary_size: int = 4096
    """Tokens of the vocabulary that is learnt."""
    max_tokens: int = 128
    """Tokens of a document, special ones included; the rest of its text is cut off."""
    max_query_tokens: int = 32
    """Tokens of a query."""
    documents_per_query: int = 16
    """Documents of a query that get their tokens written. Ids are never left out."""
    num_shards: int = 4
    """Files of the split train; there are never more than queries."""
    dev_fraction: float = 0.05
    """Share of the queries, by their hash, that keep-best is judged on and that are not trained on."""
    seed: int = 0
    """Of the choice of documents where a query has more than documents_per_query."""

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "max_tokens", "max_query_tokens", "documents_per_query", "num_shards"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, found {getattr(self, name)}")
            if getattr(self, name) > _GREATEST:
                raise ValueError(f"--{name.replace('_', '-')} must be at most {_GREATEST}, found {getattr(self, name)}")
        if not 0 <= self.dev_fraction < 1:
            raise ValueError(f"--dev-fraction must lie in [0, 1), found {self.dev_fraction}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, found {self.seed}")


def write_records(arguments: WriteRecordsArguments) -> dict[str, Any]:
    """Writes the training records of a label table: one query each, with the tokens of some of its documents."""
    check_mined_from(arguments.labels, arguments.logs)
    logs = open_logs(arguments.logs)
    groups = group_labels(read_labels(arguments.labels))
    told: dict[str, Any] = {}
    with artifacts.output_directory(
        arguments.output,
        overwrite=arguments.overwrite,
        program="data.write_records",
        kind="records",
        arguments=arguments,
        inputs={"labels": arguments.labels, "logs": arguments.logs},
        tokenizer=told,
    ) as directory:
        tokens = _write_tokenizer(arguments, logs, directory / TOKENIZER)
        told.update(fingerprint=tokens.fingerprint, vocabulary_size=tokens.vocabulary_size)
        outcome = _write(arguments, logs, groups, tokens, directory)
    return {"records": arguments.output, "vocabulary_size": tokens.vocabulary_size, **outcome}


def split_queries(groups: LabelGroups, *, dev_fraction: float) -> Bool[np.ndarray, "queries"]:
    """Which queries are dev: those whose hash lies in the lowest part of its range.

    With a fraction above 0 and at least two queries both splits get one: the query of the lowest hash that has a
    positive (or of the lowest hash) is dev, that of the highest hash is not.
    """
    is_dev = groups.query_hashes.astype(np.float64) < dev_fraction * 2.0**64
    if dev_fraction > 0 and len(is_dev) > 1:
        if not is_dev.any():
            is_dev[_with_positive(groups).argmax()] = True
        if is_dev.all():
            is_dev[-1] = False
    return is_dev


def _write_tokenizer(arguments: WriteRecordsArguments, logs: LogTables, directory: Path) -> Tokenizer:
    if arguments.tokenizer is not None:
        return tokenizer.copy(model_folder.locate(arguments.tokenizer), directory)
    print("learning a vocabulary from the documents", file=sys.stderr)
    learnt = learn_wordpiece(lambda: document_texts(logs), vocabulary_size=arguments.vocabulary_size)
    return tokenizer.save(learnt, directory)


def _write(
    arguments: WriteRecordsArguments, logs: LogTables, groups: LabelGroups, tokens: Tokenizer, directory: Path
) -> dict[str, Any]:
    texts = tokenize_documents(logs, groups.doc_ids, tokenizer=tokens, max_tokens=arguments.max_tokens)
    has_text = (texts.lengths > 0)[groups.documents]
    chosen = choose_texts(groups, has_text, documents_per_query=arguments.documents_per_query, seed=arguments.seed)
    is_dev = split_queries(groups, dev_fraction=arguments.dev_fraction)
    has_documents = np.bincount(groups.row_queries[chosen], minlength=len(groups.queries)) > 0
    if not (has_documents & ~is_dev).any():
        raise InputError(
            f"--labels {arguments.labels}: no query to train on has a document whose text --logs {arguments.logs} "
            "knows; give the logs that hold the labelled documents"
        )
    counts: Counter[str] = Counter()
    written = {}
    shards = {"train": arguments.num_shards, "dev": max(1, round(arguments.num_shards * arguments.dev_fraction))}
    for split, wanted in (("train", has_documents & ~is_dev), ("dev", has_documents & is_dev)):
        numbers = np.flatnonzero(wanted)
        if len(numbers):
            examples = _examples(groups, texts, chosen, numbers, tokens, arguments.max_query_tokens, counts)
            shown = tqdm(examples, total=len(numbers), desc=split, unit="query", file=sys.stderr, delay=2)
            records.write_records(directory, shown, num_shards=shards[split], split=split)
        written[split] = len(numbers)
    return written | _outcome(groups, texts, has_text, chosen, has_documents) | {"queries_cut": counts["cut"]}


def _examples(
    groups: LabelGroups,
    texts: DocumentTokens,
    chosen: Bool[np.ndarray, "rows"],
    numbers: Int64[np.ndarray, "queries"],
    tokens: Tokenizer,
    max_query_tokens: int,
    counts: Counter,
) -> Iterator[records.QueryRecord]:
    for start in range(0, len(numbers), _QUERIES_AT_ONCE):
        some = numbers[start : start + _QUERIES_AT_ONCE]
        query_tokens, cut = tokens.tokenize([groups.queries[number] for number in some], max_tokens=max_query_tokens)
        counts["cut"] += cut
        for number, query in zip(some, query_tokens):
            rows = np.arange(groups.bounds[number], groups.bounds[number + 1])
            with_text = rows[chosen[rows]]
            documents = groups.documents[with_text]
            yield records.QueryRecord(
                query_tokens=query,
                document_ids=groups.id_words[documents],
                document_levels=groups.levels[with_text].astype(np.int32),
                document_tokens=tuple(texts[document] for document in documents),
                labelled_ids=groups.id_words[groups.documents[rows]],
                labelled_levels=groups.levels[rows].astype(np.int32),
            )


def _outcome(
    groups: LabelGroups,
    texts: DocumentTokens,
    has_text: Bool[np.ndarray, "rows"],
    chosen: Bool[np.ndarray, "rows"],
    has_documents: Bool[np.ndarray, "queries"],
) -> dict[str, Any]:
    """Counts for the outcome line, of what was left out above all."""
    left = has_text & ~chosen
    positive = groups.levels >= Level.POSITIVE
    levels = Counter(groups.levels[chosen].tolist())
    return {
        "queries": len(groups.queries),
        "queries_left_out_without_text": int((~has_documents).sum()),
        "queries_without_positive": int((has_documents & ~_with_positive(groups)).sum()),
        "labels": len(groups.levels),
        "greatest_labels_of_a_query": int(np.diff(groups.bounds).max()),
        "texts_written": int(chosen.sum()),
        "texts_written_by_level": {str(level): levels[level] for level in sorted(levels)},
        "texts_beyond_documents_per_query": int(left.sum()),
        "positive_texts_beyond_documents_per_query": int((left & positive).sum()),
        "queries_beyond_documents_per_query": len(np.unique(groups.row_queries[left])),
        "documents": len(groups.doc_ids),
        "documents_unknown": int((~texts.known).sum()),
        "documents_without_text": int((texts.known & (texts.lengths == 0)).sum()),
        "documents_cut": texts.cut,
    }


def _with_positive(groups: LabelGroups) -> Bool[np.ndarray, "queries"]:
    # The highest level of a query stands first.
    return groups.levels[groups.bounds[:-1]] >= Level.POSITIVE


if __name__ == "__main__":
    program.run(
        write_records,
        example="python -m data.write_records --labels labels --logs split --output records --vocabulary-size 4096",
    )
