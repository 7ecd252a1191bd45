"""Records by Spark: every shard is written by one task, from the labels and texts that Spark brings together there.

Queries, shards and texts are chosen as data.write_records chooses them on one machine, so the files are the same, byte
by byte. The driver keeps no rows: it knows the hashes at which shards begin. Tasks import crops_jax and data and write
their shards into the output directory, which has to lie on a file system that driver and executors share. A shard's
labels and texts have to fit in the memory of one Python worker: write more shards where they do not.
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
from data.records.builder import RecordArrays, nothing_to_train_on, sum_counts, text_counts
from data.records.document_tokens import DOCUMENT_TABLES, DocumentTokenizer
from data.records.label_groups import LabelGroups, choose_texts, dev_threshold, group_labels, same_hash
from data.tables import LogTables
from data.tables.files import TableFiles
from data.tables.knowledge_documents import missing_documents

_QUERIES_AT_ONCE = 2048
_PREFIX = 4
"""Hexadecimal digits of a query's hash by which queries are counted, to find where shards begin."""

_WRITTEN = "written_documents"
_TEXT_COLUMNS = ("doc_id", *DOCUMENT_FIELDS)
_OF_SPLIT = {"train": "has_documents AND NOT dev", "dev": "has_documents AND dev"}
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
# The first 64 bits of the SHA-256, as crops_jax.hashing.sha256_hashes: as digits they have the order of the
# numbers.
_QUERIES = """
    SELECT query, first(key) AS key, first(key) < '{threshold}' AS dev, max(level) AS level, count(*) AS labels,
           max(octet_length(tokens) > 0) AS has_documents
    FROM (SELECT query, doc_id, level, substr(sha2(query, 256), 1, 16) AS key FROM labels) JOIN tokens USING (doc_id)
    GROUP BY query"""
_QUERY_COUNTS = """
    SELECT count(*) AS queries, count_if(dev) AS dev, count_if(NOT has_documents) AS queries_left_out_without_text,
           sum(labels) AS labels, max(labels) AS greatest_labels_of_a_query FROM queries"""
_ROWS_OF_PARTS = f"""
    SELECT part, query, doc_id, level, source = '{WRITTEN}' AS written, tokens
    FROM labels JOIN parts USING (query) JOIN tokens USING (doc_id)"""


@dataclass(frozen=True, kw_only=True)
class ShardWriter:
    """Writes the shard that the rows of one partition make; copied to the executors."""

    directory: str
    names: tuple[str, ...]
    tokenizer: Tokenizer
    max_query_tokens: int
    documents_per_query: int
    seed: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if brought := [batch for batch in batches if batch.num_rows]:
            rows = pa.Table.from_batches(brought)
            part = rows.column("part")[0].as_py()
            info, counts = self._write(rows, self.names[part])
            known = vars(info) | {"last_tokens": list(info.last_tokens)}
            told = json.dumps({"part": part, "counts": counts, "info": known})
            yield pa.RecordBatch.from_pydict({"told": [told]})

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
            for first in range(0, len(groups.queries), _QUERIES_AT_ONCE):
                texts = groups.queries[first : first + _QUERIES_AT_ONCE]
                queries, cut_here = self.tokenizer.tokenize(texts, max_tokens=self.max_query_tokens)
                cut += cut_here
                yield records.encode_records(arrays.records(np.arange(first, first + len(texts)), queries))

        # Spark may run a task twice, also at the same time: write_shard replaces files, and the last one is as good.
        info = records.write_shard(Path(self.directory) / name, parts())
        return info, text_counts(groups, has_text, chosen, queries_cut=cut)


def _arrays(groups: LabelGroups, rows: pa.Table) -> RecordArrays:
    """Returns the inputs of these rows' records, before the texts that are written are chosen."""
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
      arguments: how many tokens, which documents and split; where Spark runs.
      labels: what `data.labels.table.check_labels` gave.
      tables: where the documents stand; of a document that several have, the first counts.
      num_shards: wanted of train and of dev.

    Raises:
      InputError: two documents with one hash, written documents that nobody has, nothing to train on.
      NamedFailure: the executors wrote somewhere else, since they do not share the file system of `directory`.
    """
    connection = connect_spark(_together(labels, tables), master=arguments.spark_master)
    tokenize = DocumentTokenizer(tokenizer=tokenizer, max_tokens=arguments.max_tokens)
    _add_tokens(connection, tokenize)
    counts = _document_counts(connection, arguments)
    counts |= _add_queries(connection, dev_fraction=arguments.dev_fraction)
    sizes = {split: _count(connection, f"queries WHERE {_OF_SPLIT[split]}") for split in num_shards}
    if not sizes["train"]:
        raise nothing_to_train_on(arguments.labels, arguments.logs)
    bounds = {split: records.shard_bounds(size, num_shards[split]) for split, size in sizes.items() if size}
    names = {split: dataset_info.shard_names(split, len(bounds[split]) - 1) for split in bounds}
    begins = {split: _queries_at(connection, split, bounds[split][1:-1]) for split in bounds}
    place = _PartOf(begins=begins, first_part=dict(zip(names, (0, len(names["train"])))))
    connection.raw_sql("SELECT query, key, dev FROM queries WHERE has_documents").mapInArrow(
        place.__call__, "query string, part int"
    ).createOrReplaceTempView("parts")
    writer = ShardWriter(
        directory=str(directory.absolute()),
        names=tuple(itertools.chain(*names.values())),
        tokenizer=tokenizer,
        max_query_tokens=arguments.max_query_tokens,
        documents_per_query=arguments.documents_per_query,
        seed=arguments.seed,
    )
    told = _written_parts(connection, writer, directory)
    for split, own in names.items():
        first = place.first_part[split]
        infos = [_info(one["info"]) for one in told[first : first + len(own)]]
        records.add_split(directory, infos, split=split)
    return sizes | counts | sum_counts(one["counts"] for one in told)


def _written_parts(connection: SparkConnection, writer: ShardWriter, directory: Path) -> list[dict[str, Any]]:
    """Writes the shards on the executors; what each says of its shard, in the order of the shards."""
    rows = connection.raw_sql(_ROWS_OF_PARTS)
    partitions = rows.repartitionById(len(writer.names), rows.part)
    told = [json.loads(row.told) for row in partitions.mapInArrow(writer.__call__, "told string").collect()]
    if absent := [name for name in writer.names if not (directory / name).is_file()]:
        raise NamedFailure(
            f"{directory / absent[0]} is not there, so Spark's executors do not share this file system; give an "
            "--output that lies on one that they share"
        )
    return sorted(told, key=lambda one: one["part"])


def _together(labels: tuple[TableFiles, pa.Table], tables: Sequence[LogTables]) -> LogTables:
    """Labels and documents as one set of tables, where those of a --knowledge-documents have a name of their own."""
    files, rewrites = labels
    *written, logs = tables
    kept = {name: logs.tables[name] for name in DOCUMENT_TABLES if name in logs.names} | {"labels": files}
    for one in written:
        kept[_WRITTEN] = dataclasses.replace(one.tables["knowledge_documents"], name=_WRITTEN)
    return LogTables(
        path=logs.path,
        tables=kept,
        rewrites={"labels": rewrites} if rewrites.num_rows else {},
    )


def _add_tokens(connection: SparkConnection, tokenize: DocumentTokenizer) -> None:
    """Adds the view `tokens`: of every labelled document, whether a table knows it, its tokens and its hash."""
    there = set(connection.list_tables())
    texts = []
    for name in (_WRITTEN, *DOCUMENT_TABLES):
        if name in there:
            columns = DOCUMENT_TABLES.get(name, DOCUMENT_TABLES["knowledge_documents"])
            selected = ", ".join(column if column in columns else f"NULL AS {column}" for column in _TEXT_COLUMNS)
            first = f" ANTI JOIN {_WRITTEN} USING (doc_id)" if _WRITTEN in there and name != _WRITTEN else ""
            texts.append(f"SELECT {selected} FROM {name}{first}")
    joined = connection.raw_sql(
        f"SELECT wanted.doc_id, texts.doc_id IS NOT NULL AS known, {', '.join(_TEXT_COLUMNS[1:])} "
        "FROM (SELECT DISTINCT doc_id FROM labels) AS wanted "
        f"LEFT JOIN ({' UNION ALL '.join(texts)}) AS texts ON wanted.doc_id = texts.doc_id"
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
    """Adds the view `queries`, of all of them with their split, and counts them."""
    from pyspark.sql import functions

    grouped = connection.raw_sql(_QUERIES.format(threshold=f"{dev_threshold(dev_fraction):016x}")).cache()
    grouped.createOrReplaceTempView("queries")
    counts = connection.raw_sql(_QUERY_COUNTS).collect()[0].asDict()
    dev = counts.pop("dev")
    # As data.write_records.split_queries: both splits get a query.
    if dev_fraction > 0 and counts["queries"] > 1 and dev in (0, counts["queries"]):
        order = f"level >= {Level.POSITIVE.value} DESC, key, query" if not dev else "key DESC, query DESC"
        alone = connection.raw_sql(f"SELECT query FROM queries ORDER BY {order} LIMIT 1").collect()[0].query
        is_alone = functions.col("query") == functions.lit(alone)
        grouped.withColumn("dev", ~is_alone if dev else is_alone).createOrReplaceTempView("queries")
    return counts


def _queries_at(connection: SparkConnection, split: str, ranks: Sequence[int]) -> list[tuple[str, str]]:
    """Hash and text of the queries of a split that have these ranks, which ascend, in the order of the records.

    Counts by the first digits of the hash say among which queries they are; only those are brought here.
    """
    if not ranks:
        return []
    source = f"FROM queries WHERE {_OF_SPLIT[split]}"
    prefix = f"substr(key, 1, {_PREFIX})"
    counted = connection.raw_sql(f"SELECT {prefix} AS prefix, count(*) AS number {source} GROUP BY 1 ORDER BY 1")
    prefixes, numbers = zip(*counted.collect(), strict=True)
    ends = np.cumsum(numbers)
    places = np.searchsorted(ends, ranks, side="right")
    wanted = ", ".join(f"'{prefixes[place]}'" for place in np.unique(places))
    near = connection.raw_sql(f"SELECT key, query {source} AND {prefix} IN ({wanted})").collect()
    near.sort()
    starts = {place: bisect.bisect_left(near, (prefixes[place],)) for place in places}
    begins = [near[starts[place] + rank - int(ends[place] - numbers[place])] for place, rank in zip(places, ranks)]
    return [(begin.key, begin.query) for begin in begins]


def _count(connection: SparkConnection, source: str) -> int:
    return connection.raw_sql(f"SELECT count(*) AS number FROM {source}").collect()[0].number


def _info(told: dict[str, Any]) -> dataset_info.SplitInfo:
    info = dataset_info.SplitInfo()
    vars(info).update(told, last_tokens=set(told["last_tokens"]))
    return info


@dataclass(frozen=True, kw_only=True)
class _DocumentTask:
    """Rows of documents to their tokens and the words of their hash; copied to the executors."""

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
                # The number of texts of the batch that were cut stands in its first row.
                np.where(np.arange(len(sizes)) == 0, cut, 0),
            ]
            arrays = [pa.array(values, field.type) for values, field in zip(columns, _TOKENS)]
            yield pa.RecordBatch.from_arrays(arrays, schema=_TOKENS)


@dataclass(frozen=True, kw_only=True)
class _PartOf:
    """Says of queries to which partition, that is, to which shard of which split, they belong; copied to executors.

    begins: of each split, hash and text of the first query of each of its shards but the first.
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
