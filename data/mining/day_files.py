"""The Parquet files of a mining state: the supports of each day with users as hashes, and the scores of pairs.

Ids of users are stored as keyed hashes. Only who has the key can compute the hash of a user.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from data.backends.connection import Connection, DuckDBConnection, arrow_batches
from data.backends.sql import quoted_files
from data.mining.evidence import DECIDED_BY_THETA, Evidence
from data.perspectives import query_level, search_log, system_level
from data.perspectives.rows import SUPPORTS, as_supports

SEARCHED = "searched"
"""The source of rows that record only that a user searched a query."""

_ROWS = 131_072
_ABOUT = b"crops_jax"
_SOURCES = {
    search_log.SOURCE: tuple(search_log.LEVELS),
    query_level.SOURCE: (query_level.SOURCE,),
    system_level.SOURCE: (system_level.SOURCE,),
}
_DAY_SCHEMA = pa.schema(
    [("user", pa.string()), *((name, kind.to_pyarrow()) for name, kind in SUPPORTS.items() if name != "user_id")]
)
_SCORE_SCHEMA = pa.schema([("query", pa.string()), ("doc_id", pa.string()), ("score", pa.float64())])
KEY_BYTES = 32
_USERS_AT_ONCE = 100_000


def write_day(connection: Connection, evidence: Evidence, file: Path, *, key: bytes, about: Mapping[str, Any]) -> None:
    """Writes the evidence of a day: one row for each (user, query, doc_id, source, via_query).

    gap_seconds is the minimum over the events of a row.

    Args:
      connection: the Ibis backend that holds the evidence.
      evidence: the evidence of the day.
      key: the key of the hashes of users.
      about: the values "recorded" and "skipped", which are kept in the file; `read_evidence` uses them.
    """
    assert evidence.searches is not None
    searched = as_supports(evidence.searches.distinct(), source=SEARCHED)
    supports = ibis.union(searched, *evidence.supports.values())
    supports = supports.group_by("user_id", "query", "doc_id", "source", "via_query").agg(
        gap_seconds=supports.gap_seconds.min()
    )
    rows = hash_users(connection, supports.cache(), key).select(*_DAY_SCHEMA.names)
    rows = rows.order_by("source", "query", "doc_id", "via_query", "user")
    _write(connection, rows, file, _DAY_SCHEMA.with_metadata({_ABOUT: json.dumps(about)}))


def read_evidence(connection: DuckDBConnection, files: Sequence[Path], wanted: Sequence[str]) -> Evidence:
    """Returns the evidence of several days together, without perspectives that were skipped on all of them.

    Args:
      connection: an Ibis backend on DuckDB.
      files: the files that `write_day` wrote, at least one.
      wanted: the perspectives to read.
    """
    about = [json.loads(pq.read_schema(file).metadata[_ABOUT]) for file in files]
    rows = _read(connection, files).rename(user_id="user")
    supports = {
        name: rows.filter(rows.source.isin(sources))
        for name, sources in _SOURCES.items()
        if name in wanted and not all(name in one["skipped"] for one in about)
    }
    searches = rows.filter(rows.source == SEARCHED).select("user_id", "query")
    return Evidence(supports, searches, any(one["recorded"] for one in about))


def candidate_pairs(connection: DuckDBConnection, files: Sequence[Path]) -> ibis.Table:
    """Returns the table (query, doc_id) of the distinct candidates in the files of days."""
    rows = _read(connection, files)
    return rows.filter(rows.source.isin(DECIDED_BY_THETA)).select("query", "doc_id").distinct()


def write_scores(connection: Connection, scores: ibis.Table, file: Path) -> None:
    _write(connection, scores.order_by("query", "doc_id").select(*_SCORE_SCHEMA.names), file, _SCORE_SCHEMA)


def read_scores(connection: DuckDBConnection, files: Sequence[Path]) -> ibis.Table:
    """Returns the table (query, doc_id, score) of all pairs in the files."""
    if not files:
        return connection.create_table(ibis.util.gen_name("no_scores"), _SCORE_SCHEMA.empty_table(), temp=True)
    # A run that was killed while it merged files leaves pairs in two of them, with the same score.
    return _read(connection, files).distinct()


def _read(connection: DuckDBConnection, files: Sequence[Path]) -> ibis.Table:
    name = ibis.util.gen_name("state")
    connection.con.execute(
        f"CREATE VIEW {name} AS SELECT * FROM read_parquet({quoted_files(files)}, hive_partitioning = false)"
    )
    return connection.table(name)


def _write(connection: Connection, rows: ibis.Table, file: Path, schema: pa.Schema) -> None:
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in arrow_batches(connection, rows, rows=_ROWS):
            writer.write_table(pa.Table.from_batches([batch]).cast(schema), row_group_size=_ROWS)


def hash_users(connection: Connection, supports: ibis.Table, key: bytes) -> ibis.Table:
    """Returns the table with a column `user` instead of `user_id`: keyed BLAKE2b of 128 bits, as hexadecimal digits.

    Each distinct user is hashed once. Among 10^9 users, any two share a hash with a probability of 2 in 10^21.
    """
    hashes = [pa.table({"user_id": pa.array([], pa.string()), "user": pa.array([], pa.string())})]
    for batch in arrow_batches(connection, supports.select("user_id").distinct(), rows=_USERS_AT_ONCE):
        users = batch.column("user_id")
        digests = (hashlib.blake2b(user.encode(), key=key, digest_size=16).hexdigest() for user in users.to_pylist())
        hashes.append(pa.table({"user_id": users.cast(pa.string()), "user": pa.array(digests, pa.string())}))
    hashed = connection.create_table(ibis.util.gen_name("hashed_users"), pa.concat_tables(hashes), temp=True)
    return supports.join(hashed, "user_id").drop("user_id")
