"""The queries for which documents are requested from the language model, each with one relevant document."""

import datetime

import ibis

from crops_jax.text import DOCUMENT_FIELDS
from data.backends.connection import Connection
from data.mining.relevance.training_pairs import train_judgements
from data.perspectives.log_events import LogEvents, read_events
from data.tables import LogTables

# A grade of at least half the greatest one counts as relevant.
_RELEVANT_SHARE = 0.5


def asked_queries(
    connection: Connection,
    logs: LogTables,
    *,
    until: datetime.datetime | None,
    long_watch_seconds: float,
    with_example_only: bool,
    max_queries: int | None,
) -> ibis.Table:
    """Returns one row for each query, the most searched first: query, searches, example_id and the example's fields.

    The queries are those of the searches and of judgements of split train. The example is the train judgement with
    the highest grade (at least half of the maximum), else the document that the most users clicked, liked or watched
    long; equal ones are ordered by doc_id. Judgements of dev and test, and test tables, are never read.

    Args:
      connection, logs: the log tables.
      until: only searches before this time are read; None reads all.
      long_watch_seconds: the minimum watch time that counts as watched long.
      with_example_only: whether queries without a known relevant document are left out.
      max_queries: the maximum number of queries; None for no limit.
    """
    events = read_events(connection, logs.names, long_watch_seconds=long_watch_seconds).before(until)
    sources, relevant = [], []
    if events.searches is not None:
        sources.append(events.searches.group_by("query").agg(searches=events.searches.count()))
    if events.impressions is not None:
        relevant.append(_consumed(events))
    if "judgements" in logs.names:
        judged = train_judgements(connection)
        sources.append(judged.select("query").distinct().mutate(searches=ibis.literal(0, "int64")))
        relevant.append(_judged(connection, judged))
    queries = _union(sources)
    queries = queries.filter(queries.query != "").group_by("query").agg(searches=queries.searches.sum())
    examples = _examples(connection, _union(relevant))
    selected = queries.join(examples, "query", how="inner" if with_example_only else "left")
    selected = selected.select("query", "searches", "example_id", *DOCUMENT_FIELDS)
    selected = selected.order_by(selected.searches.desc(), selected.query)
    return (selected if max_queries is None else selected.limit(max_queries)).cache()


def _consumed(events: LogEvents) -> ibis.Table:
    assert events.impressions is not None
    consumed = events.impressions.filter(events.impressions.consumed)
    rows = consumed.group_by("query", "doc_id").agg(users=consumed.user_id.nunique())
    return rows.select("query", "doc_id", grade=ibis.literal(-1.0), users=rows.users.cast("int64"))


def _judged(connection: Connection, judged: ibis.Table) -> ibis.Table:
    judged = judged.semi_join(connection.table("documents"), "doc_id")
    greatest = judged.agg(greatest=judged.grade.max())
    rows = judged.cross_join(greatest)
    rows = rows.filter((rows.grade > 0) & (rows.grade >= _RELEVANT_SHARE * rows.greatest))
    return rows.select("query", "doc_id", grade=rows.grade.cast("float64"), users=ibis.literal(0, "int64"))


def _examples(connection: Connection, relevant: ibis.Table) -> ibis.Table:
    order = [relevant.grade.desc(), relevant.users.desc(), relevant.doc_id]
    window = ibis.window(group_by=relevant.query, order_by=order)
    best = relevant.mutate(place=ibis.row_number().over(window))
    best = best.filter(best.place == 0).select("query", "doc_id")
    documents = connection.table("documents").select("doc_id", *DOCUMENT_FIELDS)
    return best.join(documents, "doc_id").rename(example_id="doc_id")


def _union(tables: list[ibis.Table]) -> ibis.Table:
    return ibis.union(*tables) if len(tables) > 1 else tables[0]
