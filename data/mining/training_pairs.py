"""The training data of a discriminator: query-document pairs with targets, from log tables."""

import datetime
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import ibis
import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from crops_jax.errors import InputError
from crops_jax.text import DOCUMENT_FIELDS, document_text
from data.backends.connection import Connection, arrow_batches
from data.perspectives.log_events import LogEvents

if TYPE_CHECKING:
    from crops_jax.retrieval.bm25 import Bm25

JUDGEMENTS = "judgements of split train, target grade / greatest grade"
CLICKS = "clicked and shown-not-clicked documents, as many of each"
SAMPLED = "clicked documents, for each one unclicked of BM25's top 10 and one at random (the log has clicks only)"
"""The sources of training pairs, as outcomes and manifests name them."""

MAX_PAIRS = 60_000
"""The maximum number of training pairs. The lexical discriminator has few weights; more pairs hardly change them."""

_BM25_TOP = 10
_BM25_DOCUMENTS = 100_000
# Below this ratio of shown-not-clicked to clicked pairs, a log is treated as one that records only clicks.
_LEAST_NEGATIVES = 0.1


class NothingToFit(InputError):
    """The error for logs without data on which a discriminator can be fitted."""


class TrainingPairs(NamedTuple):
    """The training pairs; each of the first three fields has one entry for each pair.

    latest_time: the time of the latest search that was read; None if only judgements were read.
    unsplit_judgements: the number of judgements without a split.
    """

    queries: list[str]
    documents: list[str]
    targets: Float64[np.ndarray, "pairs"]
    source: str
    latest_time: datetime.datetime | None
    unsplit_judgements: int


def training_pairs(
    connection: Connection,
    names: Iterable[str],
    events: LogEvents,
    *,
    until: datetime.datetime | None = None,
    max_pairs: int = MAX_PAIRS,
    seed: int = 0,
) -> TrainingPairs:
    """Returns graded judgements of split train or, if these are missing, clicked and unclicked documents.

    Pairs are distinct. If there are more than `max_pairs`, those with the lowest SHA-256 are taken.

    Args:
      connection, names: the log tables and their names.
      events: the searches and impressions that can be read.
      until: documents published at this time or later are not drawn as random negatives.
      max_pairs: the maximum number of pairs.
      seed: the seed of the random negatives.

    Raises:
      NothingToFit: the logs have neither such judgements nor clicks.
    """
    known = connection.table("documents").select("doc_id")
    if "judgements" in set(names):
        judged = train_judgements(connection).semi_join(known, "doc_id")
        grades = judged.agg(low=judged.grade.min(), high=judged.grade.max(), unsplit=judged.split.isnull().sum())
        grades = grades.to_pyarrow().to_pylist()[0]
        if grades["high"] is not None and grades["low"] < grades["high"]:
            pairs = _first_by_hash(judged, max_pairs).to_pyarrow()
            targets = pairs["grade"].to_numpy().astype(np.float64) / float(grades["high"])
            return _pairs(connection, pairs, targets, JUDGEMENTS, None, int(grades["unsplit"] or 0))
    if events.impressions is None:
        raise NothingToFit(
            "there is nothing to fit a discriminator on: no judgements of split train with two or more grades on known "
            "documents, and no searches with candidates; add one of them, or give data.mine or data.hold_out a "
            "--discriminator"
        )
    return _click_pairs(connection, events, until, max_pairs, seed)


def train_judgements(connection: Connection) -> ibis.Table:
    """Returns the judgements that can be used for training: those of split train, and those without a split."""
    judgements = connection.table("judgements")
    return judgements.filter(judgements.split.fill_null("train") == "train")


def published_before(connection: Connection, until: datetime.datetime | None) -> ibis.Table:
    """Returns the documents that were published before `until` or have no date; all documents for None."""
    documents = connection.table("documents")
    if until is None:
        return documents
    return documents.filter(documents.published_at.isnull() | (documents.published_at < until))


def texts_of(connection: Connection, documents: ibis.Table) -> Iterator[str]:
    """Yields document_text of each row; 20,000 rows are in memory at a time."""
    for batch in arrow_batches(connection, documents.select(*DOCUMENT_FIELDS), rows=20_000):
        for document in batch.to_pylist():
            yield document_text(document)


def _click_pairs(
    connection: Connection, events: LogEvents, until: datetime.datetime | None, max_pairs: int, seed: int
) -> TrainingPairs:
    assert events.searches is not None
    assert events.impressions is not None
    shown = events.impressions.filter(events.impressions.stage == "shown")
    shown = shown.filter(shown.recorded)
    fates = shown.group_by("query", "doc_id").agg(consumed=shown.consumed.max()).cache()
    clicked, unclicked = fates.filter(fates.consumed), fates.filter(~fates.consumed)
    positives, negatives = (int(table.count().to_pyarrow().as_py()) for table in (clicked, unclicked))
    if not positives:
        raise NothingToFit(
            "there is nothing to fit a discriminator on: no judgements of split train with two or more grades, and no "
            "click, like or long watch in the part of the log that is read; add one of them, or give data.mine or "
            "data.hold_out a --discriminator"
        )
    latest = events.searches.time.max().to_pyarrow().as_py()
    if negatives < _LEAST_NEGATIVES * positives:
        return _sampled_pairs(connection, clicked, until, max_pairs // 3, seed, latest)
    each = min(positives, negatives, max_pairs // 2)
    pairs = pa.concat_tables([_first_by_hash(table, each).to_pyarrow() for table in (clicked, unclicked)])
    return _pairs(connection, pairs, np.repeat([1.0, 0.0], each), CLICKS, latest, 0)


def _sampled_pairs(
    connection: Connection,
    clicked: ibis.Table,
    until: datetime.datetime | None,
    max_clicks: int,
    seed: int,
    latest: datetime.datetime,
) -> TrainingPairs:
    # Bm25 imports bm25s, which starts JAX: that takes seconds and would reserve an accelerator.
    from crops_jax.retrieval.bm25 import Bm25

    pairs = _first_by_hash(clicked, max_clicks).to_pyarrow()
    queries, clicked_ids = pairs["query"].to_pylist(), pairs["doc_id"].to_pylist()
    pool = published_before(connection, until)
    pool = pool.order_by(pool.doc_id.hexdigest("sha256"), pool.doc_id).limit(_BM25_DOCUMENTS)
    pool = pool.select("doc_id", *DOCUMENT_FIELDS).to_pyarrow().to_pylist()
    ids, texts = [document["doc_id"] for document in pool], [document_text(document) for document in pool]
    known_clicks = clicked.semi_join(ibis.memtable(pairs.select(["query"])), "query")
    clicks_of: dict[str, set[str]] = {}
    for row in known_clicks.select("query", "doc_id").to_pyarrow().to_pylist():
        clicks_of.setdefault(row["query"], set()).add(row["doc_id"])
    top_of = _unclicked_top(Bm25(texts), ids, clicks_of)
    random = np.random.default_rng(seed)
    sampled_queries, sampled_texts = [], []
    for query in queries:
        unclicked_random = [at for at in random.integers(len(ids), size=8) if ids[at] not in clicks_of[query]][:2]
        top = top_of[query]
        chosen = [top[random.integers(len(top))], *unclicked_random[:1]] if top else unclicked_random
        sampled_queries += [query] * len(chosen)
        sampled_texts += [texts[at] for at in chosen]
    text_of = _texts_by_id(connection, clicked_ids)
    return TrainingPairs(
        queries + sampled_queries,
        [text_of[doc_id] for doc_id in clicked_ids] + sampled_texts,
        np.repeat([1.0, 0.0], [len(queries), len(sampled_queries)]),
        SAMPLED,
        latest,
        0,
    )


def _unclicked_top(bm25: "Bm25", ids: list[str], clicks_of: dict[str, set[str]]) -> dict[str, list[int]]:
    """Returns the indices of the best unclicked documents of each query, at most _BM25_TOP.

    Queries with similar numbers of clicks are searched together, so that a query with very many clicks does not deepen
    the search of the others.
    """
    by_depth: dict[int, list[str]] = {}
    for query, clicked in clicks_of.items():
        by_depth.setdefault((_BM25_TOP + len(clicked) - 1).bit_length(), []).append(query)
    top_of: dict[str, list[int]] = {}
    for bits, queries in by_depth.items():
        best = bm25.search(queries, 1 << bits)[1]
        for query, row in zip(queries, best, strict=True):
            # A row ends in -1 if there are fewer documents.
            top_of[query] = [int(at) for at in row if at >= 0 and ids[at] not in clicks_of[query]][:_BM25_TOP]
    return top_of


def _first_by_hash(table: ibis.Table, rows: int) -> ibis.Table:
    key = (table.query + "\n" + table.doc_id).hexdigest("sha256")
    return table.order_by(key, table.query, table.doc_id).limit(rows)


def _pairs(
    connection: Connection,
    pairs: pa.Table,
    targets: np.ndarray,
    source: str,
    latest: datetime.datetime | None,
    unsplit: int,
) -> TrainingPairs:
    doc_ids = pairs["doc_id"].to_pylist()
    text_of = _texts_by_id(connection, doc_ids)
    documents = [text_of[doc_id] for doc_id in doc_ids]
    return TrainingPairs(pairs["query"].to_pylist(), documents, targets, source, latest, unsplit)


def _texts_by_id(connection: Connection, doc_ids: list[str]) -> dict[str, str]:
    wanted = ibis.memtable(pa.table({"doc_id": pa.array(sorted(set(doc_ids)), pa.string())}))
    found = connection.table("documents").semi_join(wanted, "doc_id").select("doc_id", *DOCUMENT_FIELDS)
    return {row["doc_id"]: document_text(row) for row in found.to_pyarrow().to_pylist()}
