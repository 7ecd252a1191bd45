"""The training data of a discriminator: query-document pairs with targets, from log tables."""

import datetime
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ibis
import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from crops_jax.artifacts.lineage import line, manifest_or_none
from crops_jax.discriminator.populations import FEED, POOL, RANDOM, Populations
from crops_jax.errors import InputError
from crops_jax.text import DOCUMENT_FIELDS, document_text
from data.backends.connection import Connection, arrow_batches
from data.mining.evidence import count
from data.mining.relevance.background_pairs import (
    candidate_counts,
    draw_pairs,
    feed_documents,
    first_documents,
    known_positives,
    random_documents,
)
from data.perspectives.log_events import LogEvents
from data.tables import LogTables

if TYPE_CHECKING:
    from crops_jax.retrieval.bm25 import Bm25

JUDGEMENTS = "judgements of split train"
CLICKS = "clicked and shown-not-clicked documents, as many of each"
SAMPLED = "clicked documents, for each one unclicked of BM25's top 10 and one at random (the log has clicks only)"
"""The sources of training pairs, as outcomes and manifests name them."""

MAX_PAIRS = 60_000
"""The maximum number of training pairs. The lexical discriminator has few weights; more pairs hardly change them."""

RANDOM_SHARE = FEED_SHARE = 0.5
"""The numbers of random documents and of feed documents that are added as irrelevant pairs, as a multiple of the pairs
that were judged or clicked."""

_BM25_TOP = 10
# Below this ratio of shown-not-clicked to clicked pairs, a log is treated as one that records only clicks.
_LEAST_NEGATIVES = 0.1


class NothingToFit(InputError):
    """The error for logs without data on which a discriminator can be fitted."""


class TrainingPairs(NamedTuple):
    """The training pairs; each of the first three fields has one entry for each pair.

    targets: 1 for a relevant or clicked document, 0 for another.
    populations: the population of each pair.
    relevant_grade: the minimum grade of a relevant document; None if the pairs are not judgements.
    latest_time: the time of the latest search that was read; None if only judgements were read.
    unsplit_judgements: the number of judgements without a split.
    """

    queries: list[str]
    documents: list[str]
    targets: Float64[np.ndarray, "pairs"]
    populations: Populations
    source: str
    relevant_grade: float | None
    latest_time: datetime.datetime | None
    unsplit_judgements: int


class _Pool(NamedTuple):
    """Judged or clicked pairs before others are added.

    known: the pairs that must not be drawn as irrelevant ones. background: the random pairs that are already in it.
    """

    pairs: list[tuple[str, str]]
    targets: list[float]
    known: set[tuple[str, str]]
    source: str
    relevant_grade: float | None
    latest_time: datetime.datetime | None
    unsplit_judgements: int
    background: list[tuple[str, str]]


def training_pairs(
    connection: Connection,
    logs: LogTables,
    events: LogEvents,
    *,
    until: datetime.datetime | None = None,
    relevant_grade: float | None = None,
    max_pairs: int = MAX_PAIRS,
    seed: int = 0,
) -> TrainingPairs:
    """Returns judgements of split train or, if these are missing, clicked and unclicked documents; and irrelevant ones.

    Pairs are distinct. If there are more than `max_pairs`, the judged or clicked ones with the lowest SHA-256 are
    taken. Documents drawn at random, and documents of the feed, are added as irrelevant pairs, half as many of either;
    no judged pair and no pair with a click is drawn.

    Args:
      connection, logs: the log tables.
      events: the searches, impressions and feed views that can be read.
      until: documents published at this time or later are not drawn.
      relevant_grade: the minimum grade of a relevant judgement; None for that which the source of the logs declares or,
        without one, the lowest grade above 0.
      max_pairs: the maximum number of pairs.
      seed: the seed of the random documents.

    Raises:
      NothingToFit: the logs have neither such judgements nor clicks.
    """
    rng = np.random.default_rng(seed)
    most = max(int(max_pairs / (1 + RANDOM_SHARE + FEED_SHARE)), 2)
    if relevant_grade is None:
        relevant_grade = declared_relevant_grade(logs.path)
    pool = _judged_pool(connection, logs.names, events, relevant_grade, most)
    if pool is None:
        pool = _click_pool(connection, events, until, most, rng)
    documents = published_before(connection, until)
    queries = [query for query, _ in pool.pairs]
    random = pool.background
    if not random:
        number = round(RANDOM_SHARE * len(queries))
        random = draw_pairs(queries, random_documents(documents), pool.known, number=number, rng=rng)
    viewed, shares = feed_documents(events, documents)
    known = pool.known | set(random)
    feed = draw_pairs(queries, viewed, known, number=round(FEED_SHARE * len(queries)), rng=rng, shares=shares)
    of_queries, of_feed = candidate_counts(events)
    pairs = [*pool.pairs, *feed, *random]
    index = np.repeat(np.array([POOL, FEED, RANDOM], np.int8), [len(pool.pairs), len(feed), len(random)])
    text_of = _texts_by_id(connection, [doc_id for _, doc_id in pairs])
    return TrainingPairs(
        queries=[query for query, _ in pairs],
        documents=[text_of[doc_id] for _, doc_id in pairs],
        targets=np.array([*pool.targets, *[0.0] * (len(feed) + len(random))]),
        populations=Populations(index, (of_queries, of_feed, 0)),
        source=pool.source,
        relevant_grade=pool.relevant_grade,
        latest_time=pool.latest_time,
        unsplit_judgements=pool.unsplit_judgements,
    )


def declared_relevant_grade(logs: Path | str) -> float | None:
    """Returns the minimum grade of a relevant document that the source of some logs declares; None if it declares none.

    data.simulate and data.convert keep it in the manifest of what they write, and data.hold_out carries that along.
    """
    grade = _declared(logs, "relevant_grade")
    return None if grade is None else float(grade)


def judged_by_group(logs: Path | str) -> bool:
    """Returns whether the source of some logs declares that a judgement holds for all queries of its query's group."""
    return bool(_declared(logs, "judged_by_group"))


def _declared(logs: Path | str, field: str) -> Any:
    found = (manifest.get(field) for manifest in line(manifest_or_none(logs), "logs"))
    return next((value for value in found if value is not None), None)


def lowest_relevant_grade(judgements: ibis.Table) -> float | None:
    """Returns the lowest grade above 0; None if there is none."""
    grade = judgements.filter(judgements.grade > 0).grade.min().to_pyarrow().as_py()
    return None if grade is None else float(grade)


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


def _judged_pool(
    connection: Connection,
    names: Iterable[str],
    events: LogEvents,
    relevant_grade: float | None,
    max_pairs: int,
) -> _Pool | None:
    """Returns the judgements of split train; None if they are not of both kinds, relevant and not."""
    if "judgements" not in set(names):
        return None
    judged = train_judgements(connection).semi_join(connection.table("documents").select("doc_id"), "doc_id")
    least = lowest_relevant_grade(judged) if relevant_grade is None else relevant_grade
    if least is None:
        return None
    kinds = judged.agg(relevant=(judged.grade >= least).sum(), rows=judged.count(), unsplit=judged.split.isnull().sum())
    [counts] = kinds.to_pyarrow().to_pylist()
    if not 0 < (counts["relevant"] or 0) < counts["rows"]:
        return None
    rows = _first_by_hash(judged, max_pairs).to_pyarrow()
    pairs = _pairs_of(rows)
    every = judged.semi_join(ibis.memtable(rows.select(["query"])).distinct(), "query")
    known = set(_pairs_of(every.select("query", "doc_id").to_pyarrow()))
    known |= known_positives(events, [query for query, _ in pairs])
    targets = (rows["grade"].to_numpy() >= least).astype(np.float64).tolist()
    return _Pool(pairs, targets, known, JUDGEMENTS, least, None, int(counts["unsplit"] or 0), [])


def _click_pool(
    connection: Connection,
    events: LogEvents,
    until: datetime.datetime | None,
    max_pairs: int,
    rng: np.random.Generator,
) -> _Pool:
    if events.impressions is None:
        raise NothingToFit(
            "there is nothing to fit a discriminator on: no judgements of split train on known documents that are "
            "relevant and not relevant, and no searches with candidates; add one of them, or give data.mine or "
            "data.hold_out a --discriminator"
        )
    assert events.searches is not None
    shown = events.impressions.filter(events.impressions.stage == "shown")
    shown = shown.filter(shown.recorded)
    fates = shown.group_by("query", "doc_id").agg(consumed=shown.consumed.max()).cache()
    clicked, unclicked = fates.filter(fates.consumed), fates.filter(~fates.consumed)
    positives, negatives = (count(table) for table in (clicked, unclicked))
    if not positives:
        raise NothingToFit(
            "there is nothing to fit a discriminator on: no judgements of split train that are relevant and not "
            "relevant, and no click, like or long watch in the part of the log that is read; add one of them, or give "
            "data.mine or data.hold_out a --discriminator"
        )
    latest = events.searches.time.max().to_pyarrow().as_py()
    if negatives < _LEAST_NEGATIVES * positives:
        return _sampled_pool(connection, clicked, until, max_pairs // 2, rng, latest)
    each = min(positives, negatives, max_pairs // 2)
    pairs = [pair for table in (clicked, unclicked) for pair in _pairs_of(_first_by_hash(table, each).to_pyarrow())]
    known = known_positives(events, [query for query, _ in pairs]) | set(pairs)
    return _Pool(pairs, [1.0] * each + [0.0] * each, known, CLICKS, None, latest, 0, [])


def _sampled_pool(
    connection: Connection,
    clicked: ibis.Table,
    until: datetime.datetime | None,
    max_clicks: int,
    rng: np.random.Generator,
    latest: datetime.datetime,
) -> _Pool:
    # Bm25 imports bm25s, which starts JAX: that takes seconds and would reserve an accelerator.
    from crops_jax.retrieval.bm25 import Bm25

    rows = _first_by_hash(clicked, max_clicks).to_pyarrow()
    positives = _pairs_of(rows)
    pool = published_before(connection, until)
    pool = first_documents(pool).select("doc_id", *DOCUMENT_FIELDS).to_pyarrow().to_pylist()
    ids = [document["doc_id"] for document in pool]
    clicks_of: dict[str, set[str]] = {}
    for query, doc_id in _pairs_of(clicked.semi_join(ibis.memtable(rows.select(["query"])), "query").to_pyarrow()):
        clicks_of.setdefault(query, set()).add(doc_id)
    top_of = _unclicked_top(Bm25([document_text(document) for document in pool]), ids, clicks_of)
    hard, random = [], []
    for query, _ in positives:
        unclicked = [at for at in rng.integers(len(ids), size=8) if ids[at] not in clicks_of[query]][:2]
        top = top_of[query]
        chosen = [top[rng.integers(len(top))]] if top else unclicked[1:]
        hard += [(query, ids[at]) for at in chosen]
        random += [(query, ids[at]) for at in unclicked[:1]]
    known = {(query, doc_id) for query, doc_ids in clicks_of.items() for doc_id in doc_ids}
    targets = [1.0] * len(positives) + [0.0] * len(hard)
    return _Pool([*positives, *hard], targets, known, SAMPLED, None, latest, 0, random)


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


def _pairs_of(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table["query"].to_pylist(), table["doc_id"].to_pylist(), strict=True))


def _texts_by_id(connection: Connection, doc_ids: list[str]) -> dict[str, str]:
    wanted = ibis.memtable(pa.table({"doc_id": pa.array(sorted(set(doc_ids)), pa.string())}))
    found = connection.table("documents").semi_join(wanted, "doc_id").select("doc_id", *DOCUMENT_FIELDS)
    return {row["doc_id"]: document_text(row) for row in found.to_pyarrow().to_pylist()}
