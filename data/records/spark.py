"""Writes records with Spark: one task writes each shard, from the labels and texts that Spark joins for it.

Queries, shards and texts are chosen as data.write_records chooses them on one machine, so the files are the same, byte
for byte. The driver holds no rows, only the hashes at which shards begin. Tasks import crops_jax and data, and write
their shards into the output directory, which must be on a file system that driver and executors share. The labels and
texts of a shard must fit in the memory of one Python worker; if they do not, write more shards.
"""

import bisect
import dataclasses
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crops_jax import records
from crops_jax.errors import NamedFailure
from crops_jax.hashing import document_id_words
from crops_jax.labels import Level
from crops_jax.records import dataset_info
from crops_jax.text import DOCUMENT_FIELDS
from crops_jax.text.tokenizer import Tokenizer
from data.backends.connection import SparkConnection
from data.backends.spark_tables import connect_spark
from data.perspectives.knowledge_level import SOURCE as WRITTEN
from data.records.arguments import WriteRecordsArguments
from data.records.builder import NO_SCORES, RecordArrays, nothing_to_train_on, sum_counts, text_counts
from data.records.document_tokens import DOCUMENT_TABLES, DocumentTokenizer
from data.records.label_groups import LabelGroups, choose_texts, dev_threshold, group_labels, same_hash
from data.tables import LogTables
from data.tables.files import TableFiles
from data.tables.knowledge_documents import missing_documents

_QUERIES_PER_BATCH = 2048
_PREFIX = 4
"""The number of hexadecimal digits of a query's hash by which queries are counted, to find where shards begin."""

_WRITTEN = "written_documents"
_TEXT_COLUMNS = ("doc_id", *DOCUMENT_FIELDS)
_SPLIT_CONDITIONS = {"train": "has_documents AND NOT dev", "dev": "has_documents AND dev"}
_TOKENS = pa.schema(
    [
        ("doc_id", pa.string()),
        ("known", pa.bool_()),
        ("high", pa.int32()),
        ("low", pa.int32()),
        ("tokens", pa.binary()),
        ("cut", pa.int64()),
    ]
)
_TOKENS_SQL = "doc_id string, known boolean, high int, low int, tokens binary, cut bigint"
_SAME_HASH = """
    SELECT count(*) AS number, min(first) AS first, min_by(second, first) AS second FROM (
        SELECT min(doc_id) AS first, max(doc_id) AS second FROM tokens GROUP BY high, low HAVING count(*) > 1)"""
_MISSING_WRITTEN = f"""
    SELECT count(*) AS number, slice(array_sort(collect_list(doc_id)), 1, 3) AS examples FROM (
        SELECT DISTINCT doc_id FROM labels WHERE source = '{WRITTEN}') SEMI JOIN tokens
    ON tokens.doc_id = __auto_generated_subquery_name.doc_id AND NOT tokens.known"""
_DOCUMENT_COUNTS = """
    SELECT count(*) AS documents, count_if(NOT known) AS documents_unknown,
           count_if(known AND octet_length(tokens) = 0) AS documents_without_text,
           coalesce(sum(cut), 0) AS documents_cut FROM tokens"""
# key is the first 64 bits of the SHA-256, as in crops_jax.hashing.sha256_hashes. Hexadecimal digits of equal length
# have the order of the numbers.
_QUERIES = """
    SELECT query, first(key) AS key, first(key) < '{threshold}' AS dev, max(level) AS level, count(*) AS labels,
           max(octet_length(tokens) > 0) AS has_documents
    FROM (SELECT query, doc_id, level, substr(sha2(query, 256), 1, 16) AS key FROM labels) JOIN tokens USING (doc_id)
    GROUP BY query"""
_QUERY_COUNTS = """
    SELECT count(*) AS queries, count_if(has_documents AND dev) AS dev,
           count_if(NOT has_documents) AS queries_left_out_without_text,
           sum(labels) AS labels, max(labels) AS greatest_labels_of_a_query FROM queries"""
_ROWS_OF_PARTS = f"""
    SELECT part, query, doc_id, level, source = '{WRITTEN}' AS written, tokens
    FROM labels JOIN parts USING (query) JOIN tokens USING (doc_id)"""


@dataclass(frozen=True, kw_only=True)
class ShardWriter:
    """Writes the shard of the rows of one partition. It is copied to the executors."""

    directory: str
    names: tuple[str, ...]
    tokenizer: Tokenizer
    max_query_tokens: int
    documents_per_query: int
    seed: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if filled := [batch for batch in batches if batch.num_rows]:
            rows = pa.Table.from_batches(filled)
            part = rows.column("part")[0].as_py()
            info, counts = self._write(rows, self.names[part])
            fields = vars(info) | {"last_tokens": list(info.last_tokens)}
            summary = json.dumps({"part": part, "counts": counts, "info": fields})
            yield pa.RecordBatch.from_pydict({"summary": [summary]})

    def _write(self, rows: pa.Table, name: str) -> tuple[dataset_info.SplitInfo, dict[str, Any]]:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        groups = group_labels(rows)
        arrays = _arrays(groups, rows)
        has_text = (arrays.lengths > 0)[groups.documents]
        chosen = choose_texts(groups, has_text, documents_per_query=self.documents_per_query, seed=self.seed)
        arrays = arrays._replace(chosen=chosen)
        cut = 0

        def parts() -> Iterator[records.EncodedRecords]:
            nonlocal cut
            for first in range(0, len(groups.queries), _QUERIES_PER_BATCH):
                texts = groups.queries[first : first + _QUERIES_PER_BATCH]
                queries, cut_here = self.tokenizer.tokenize(texts, max_tokens=self.max_query_tokens)
                cut += cut_here
                yield records.encode_records(arrays.records(np.arange(first, first + len(texts)), queries))

        # Spark can run a task twice, even at the same time. write_shard replaces files, and both runs write the same.
        info = records.write_shard(Path(self.directory) / name, parts())
        return info, text_counts(groups, has_text, chosen, queries_cut=cut)


def _arrays(groups: LabelGroups, rows: pa.Table) -> RecordArrays:
    """Returns the inputs of the records of these rows. No text is chosen in them yet."""
    firsts = pc.index_in(groups.doc_ids, value_set=rows.column("doc_id").combine_chunks())
    joined = rows.column("tokens").cast(pa.large_binary()).take(firsts).combine_chunks().fill_null(b"")
    if isinstance(joined, pa.ChunkedArray):
        joined = pa.concat_arrays(joined.chunks)
    sizes = pc.binary_length(joined).to_numpy().astype(np.int64)
    content = b"".join(joined.to_pylist())
    return RecordArrays(
        bounds=groups.bounds,
        documents=groups.documents,
        levels=groups.levels,
        chosen=np.zeros(len(groups.levels), bool),
        id_words=groups.id_words,
        starts=(np.cumsum(sizes) - sizes) // 4,
        lengths=(sizes // 4).astype(np.int32),
        scores=NO_SCORES,
        tokens=np.frombuffer(content, "<i4"),
    )


def write_with_spark(
    arguments: WriteRecordsArguments,
    labels: tuple[TableFiles, pa.Table],
    tables: Sequence[LogTables],
    *,
    tokenizer: Tokenizer,
    directory: Path,
    num_shards: dict[str, int],
) -> dict[str, Any]:
    """Writes the records of a label table into `directory` and returns their counts.

    Args:
      arguments: the limits of tokens and documents, the share of dev, and the address of Spark.
      labels: the value that `data.labels.table.check_labels` returned.
      tables: the log tables with the documents. If several have a document, the first one is used.
      tokenizer: the tokenizer of the records.
      directory: the directory of the records.
      num_shards: the requested number of shards of train and of dev.

    Raises:
      InputError: two documents have the same hash, no table has a document of a language model, or no query can be
        trained on.
      NamedFailure: the executors wrote to another file system, because they do not share that of `directory`.
    """
    connection = connect_spark(_joined_tables(labels, tables), master=arguments.spark_master)
    tokenize = DocumentTokenizer(tokenizer=tokenizer, max_tokens=arguments.max_tokens)
    _add_tokens(connection, tokenize)
    counts = _document_counts(connection, arguments)
    counts |= _add_queries(connection, dev_fraction=arguments.dev_fraction)
    sizes = {split: _count(connection, f"queries WHERE {_SPLIT_CONDITIONS[split]}") for split in num_shards}
    if not sizes["train"]:
        raise nothing_to_train_on(arguments.labels, arguments.logs)
    bounds = {split: records.shard_bounds(size, num_shards[split]) for split, size in sizes.items() if size}
    names = {split: dataset_info.shard_names(split, len(bounds[split]) - 1) for split in bounds}
    begins = {split: _queries_at(connection, split, bounds[split][1:-1]) for split in bounds}
    assign = _PartAssignment(begins=begins, first_part=dict(zip(names, (0, len(names["train"])))))
    connection.raw_sql("SELECT query, key, dev FROM queries WHERE has_documents").mapInArrow(
        assign.__call__, "query string, part int"
    ).createOrReplaceTempView("parts")
    writer = ShardWriter(
        directory=str(directory.absolute()),
        names=tuple(itertools.chain(*names.values())),
        tokenizer=tokenizer,
        max_query_tokens=arguments.max_query_tokens,
        documents_per_query=arguments.documents_per_query,
        seed=arguments.seed,
    )
    summaries = _write_parts(connection, writer, directory)
    for split, own in names.items():
        first = assign.first_part[split]
        infos = [_info(summary["info"]) for summary in summaries[first : first + len(own)]]
        records.add_split(directory, infos, split=split)
    return sizes | counts | sum_counts(summary["counts"] for summary in summaries)


def _write_parts(connection: SparkConnection, writer: ShardWriter, directory: Path) -> list[dict[str, Any]]:
    """Writes the shards on the executors, and returns the summary of each shard, in the order of the shards."""
    rows = connection.raw_sql(_ROWS_OF_PARTS)
    partitions = rows.repartitionById(len(writer.names), rows.part)
    written = partitions.mapInArrow(writer.__call__, "summary string").collect()
    summaries = [json.loads(row.summary) for row in written]
    if absent := [name for name in writer.names if not (directory / name).is_file()]:
        raise NamedFailure(
            f"{directory / absent[0]} does not exist, so Spark's executors do not share this file system; choose an "
            "--output on a file system that they share"
        )
    return sorted(summaries, key=lambda summary: summary["part"])


def _joined_tables(labels: tuple[TableFiles, pa.Table], tables: Sequence[LogTables]) -> LogTables:
    """Returns labels and documents as one set of tables; the table of --knowledge-documents has a name of its own."""
    files, rewrites = labels
    *written, logs = tables
    kept = {name: logs.tables[name] for name in DOCUMENT_TABLES if name in logs.names} | {"labels": files}
    for documents in written:
        kept[_WRITTEN] = dataclasses.replace(documents.tables["knowledge_documents"], name=_WRITTEN)
    return LogTables(
        path=logs.path,
        tables=kept,
        rewrites={"labels": rewrites} if rewrites.num_rows else {},
    )


def _add_tokens(connection: SparkConnection, tokenize: DocumentTokenizer) -> None:
    """Adds the view `tokens`, with the tokens and the hash of every labelled document, and whether a table has it."""
    table_names = set(connection.list_tables())
    texts = []
    for name in (_WRITTEN, *DOCUMENT_TABLES):
        if name in table_names:
            columns = DOCUMENT_TABLES.get(name, DOCUMENT_TABLES["knowledge_documents"])
            selected = ", ".join(column if column in columns else f"NULL AS {column}" for column in _TEXT_COLUMNS)
            first = f" ANTI JOIN {_WRITTEN} USING (doc_id)" if _WRITTEN in table_names and name != _WRITTEN else ""
            texts.append(f"SELECT {selected} FROM {name}{first}")
    joined = connection.raw_sql(
        f"SELECT labelled.doc_id, texts.doc_id IS NOT NULL AS known, {', '.join(_TEXT_COLUMNS[1:])} "
        "FROM (SELECT DISTINCT doc_id FROM labels) AS labelled "
        f"LEFT JOIN ({' UNION ALL '.join(texts)}) AS texts ON labelled.doc_id = texts.doc_id"
    )
    tokens = joined.mapInArrow(_DocumentTask(tokenize=tokenize).__call__, _TOKENS_SQL)
    tokens.cache().createOrReplaceTempView("tokens")


def _document_counts(connection: SparkConnection, arguments: WriteRecordsArguments) -> dict[str, int]:
    same = connection.raw_sql(_SAME_HASH).collect()[0]
    if same.number:
        raise same_hash(same.first, same.second, pairs=same.number)
    missing = connection.raw_sql(_MISSING_WRITTEN).collect()[0]
    if missing.number:
        raise missing_documents(
            labels=arguments.labels,
            logs=arguments.logs,
            knowledge_documents=arguments.knowledge_documents,
            number=missing.number,
            examples=missing.examples,
        )
    return connection.raw_sql(_DOCUMENT_COUNTS).collect()[0].asDict()


def _add_queries(connection: SparkConnection, *, dev_fraction: float) -> dict[str, int]:
    """Adds the view `queries`, with every query and its split, and returns the counts of queries."""
    from pyspark.sql import functions

    grouped = connection.raw_sql(_QUERIES.format(threshold=f"{dev_threshold(dev_fraction):016x}")).cache()
    grouped.createOrReplaceTempView("queries")
    counts = connection.raw_sql(_QUERY_COUNTS).collect()[0].asDict()
    dev = counts.pop("dev")
    # Both splits get a query, as in data.write_records.split_queries.
    written = counts["queries"] - counts["queries_left_out_without_text"]
    if dev_fraction > 0 and (dev == written > 0 or (dev == 0 and written > 1)):
        order = f"level >= {Level.POSITIVE.value} DESC, key, query" if not dev else "key DESC, query DESC"
        alone = (
            connection.raw_sql(f"SELECT query FROM queries WHERE has_documents ORDER BY {order} LIMIT 1")
            .collect()[0]
            .query
        )
        is_alone = functions.col("query") == functions.lit(alone)
        grouped.withColumn("dev", ~is_alone if dev else is_alone).createOrReplaceTempView("queries")
    return counts


def _queries_at(connection: SparkConnection, split: str, ranks: Sequence[int]) -> list[tuple[str, str]]:
    """Returns hash and text of the queries with these ranks in a split. Ranks are ascending, in the order of records.

    Counts by the first digits of the hash narrow down the queries, so that only a few are collected on the driver.
    """
    if not ranks:
        return []
    source = f"FROM queries WHERE {_SPLIT_CONDITIONS[split]}"
    prefix = f"substr(key, 1, {_PREFIX})"
    counted = connection.raw_sql(f"SELECT {prefix} AS prefix, count(*) AS number {source} GROUP BY 1 ORDER BY 1")
    prefixes, numbers = zip(*counted.collect(), strict=True)
    ends = np.cumsum(numbers)
    buckets = np.searchsorted(ends, ranks, side="right")
    selected = ", ".join(f"'{prefixes[bucket]}'" for bucket in np.unique(buckets))
    near = connection.raw_sql(f"SELECT key, query {source} AND {prefix} IN ({selected})").collect()
    near.sort()
    starts = {bucket: bisect.bisect_left(near, (prefixes[bucket],)) for bucket in buckets}
    begins = [near[starts[bucket] + rank - int(ends[bucket] - numbers[bucket])] for bucket, rank in zip(buckets, ranks)]
    return [(begin.key, begin.query) for begin in begins]


def _count(connection: SparkConnection, source: str) -> int:
    return connection.raw_sql(f"SELECT count(*) AS number FROM {source}").collect()[0].number


def _info(fields: dict[str, Any]) -> dataset_info.SplitInfo:
    info = dataset_info.SplitInfo()
    vars(info).update(fields, last_tokens=set(fields["last_tokens"]))
    return info


@dataclass(frozen=True, kw_only=True)
class _DocumentTask:
    """Turns rows of documents into their tokens and the words of their hash. It is copied to the executors."""

    tokenize: DocumentTokenizer

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        for batch in batches:
            tokens, sizes, cut = self.tokenize(batch)
            ends = np.cumsum(sizes)
            words = document_id_words(batch.column("doc_id").to_pylist())
            columns = [
                batch.column("doc_id"),
                batch.column("known"),
                words[:, 0],
                words[:, 1],
                [tokens[end - size : end].astype("<i4").tobytes() for end, size in zip(ends, sizes)],
                # The first row of a batch holds the number of its texts that were cut.
                np.where(np.arange(len(sizes)) == 0, cut, 0),
            ]
            arrays = [pa.array(values, field.type) for values, field in zip(columns, _TOKENS)]
            yield pa.RecordBatch.from_arrays(arrays, schema=_TOKENS)


@dataclass(frozen=True, kw_only=True)
class _PartAssignment:
    """Assigns queries to partitions: one partition is one shard of a split. It is copied to the executors.

    begins: for each split, the hash and text of the first query of each shard except the first shard.
    first_part: for each split, the number of its first partition.
    """

    begins: dict[str, list[tuple[str, str]]]
    first_part: dict[str, int]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = zip(*(batch.column(name).to_pylist() for name in ("dev", "key", "query")))
            parts = [self._part("dev" if dev else "train", (key, query)) for dev, key, query in rows]
            queries = pa.array(batch.column("query"), pa.string())
            yield pa.RecordBatch.from_arrays([queries, pa.array(parts, pa.int32())], names=["query", "part"])

    def _part(self, split: str, query: tuple[str, str]) -> int:
        return self.first_part[split] + bisect.bisect_right(self.begins[split], query)
