"""Irrelevant pairs beside the judged or clicked ones: documents drawn at random and documents of the feed.

Almost all documents are irrelevant to a query, but pools of judgements and pages of results have only documents that
the engine took for relevant. A discriminator (theta) that has seen these alone accepts a large share of arbitrary
pairs. The system level (P2) offers it documents of the recommendation feed, so documents of that kind belong to its
training too.
"""

from collections.abc import Sequence

import ibis
import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from data.mining.evidence import count
from data.perspectives import query_level, system_level
from data.perspectives.log_events import LogEvents

MAX_DOCUMENTS = 100_000
"""The maximum number of documents that random ones are drawn from: those with the lowest SHA-256 of their id."""

_ATTEMPTS = 4
_MAX_COUNTED_SEARCHES = 1_000_000


def first_documents(documents: ibis.Table) -> ibis.Table:
    """Returns at most MAX_DOCUMENTS documents, in the order of the SHA-256 of their ids."""
    return documents.order_by(documents.doc_id.hexdigest("sha256"), documents.doc_id).limit(MAX_DOCUMENTS)


def random_documents(documents: ibis.Table) -> list[str]:
    """Returns the ids of `first_documents`, in their order."""
    return first_documents(documents).select("doc_id").to_pyarrow()[0].to_pylist()


def feed_documents(events: LogEvents, documents: ibis.Table) -> tuple[list[str], Float64[np.ndarray, "documents"]]:
    """Returns the ids of the known documents that the feed showed, sorted, and the share of views of each.

    Both are empty if the log has no feed.
    """
    if events.feed_views is None:
        return [], np.zeros(0)
    views = events.feed_views.semi_join(documents, "doc_id")
    counted = views.group_by("doc_id").agg(views=views.count()).order_by("doc_id").to_pyarrow()
    numbers = counted["views"].to_numpy().astype(np.float64)
    return counted["doc_id"].to_pylist(), numbers / max(numbers.sum(), 1.0)


def draw_pairs(
    queries: Sequence[str],
    doc_ids: Sequence[str],
    known: set[tuple[str, str]],
    *,
    number: int,
    rng: np.random.Generator,
    shares: Float64[np.ndarray, "documents"] | None = None,
) -> list[tuple[str, str]]:
    """Returns distinct pairs (query, doc_id) of a query and a document drawn independently of it, without known pairs.

    Args:
      queries: the queries to draw from; a query that occurs twice is drawn twice as often.
      doc_ids: the ids of the documents to draw from.
      known: pairs that are not returned: judged ones, and ones with a click.
      number: the number of pairs. Fewer are returned if most pairs are known.
      rng: the source of random numbers.
      shares: the probability of each document; None for equal ones.
    """
    drawn: dict[tuple[str, str], None] = {}
    for _ in range(_ATTEMPTS if queries and len(doc_ids) else 0):
        missing = number - len(drawn)
        if missing <= 0:
            break
        chosen = rng.integers(len(queries), size=missing)
        documents = rng.choice(len(doc_ids), size=missing, p=shares)
        for query, document in zip(chosen, documents, strict=True):
            pair = (queries[int(query)], doc_ids[int(document)])
            if pair not in known:
                drawn[pair] = None
    return list(drawn)


def known_positives(events: LogEvents, queries: Sequence[str]) -> set[tuple[str, str]]:
    """Returns the pairs of some queries with a click, like or long watch; empty if the log has no candidates."""
    if events.impressions is None:
        return set()
    wanted = ibis.memtable(pa.table({"query": pa.array(sorted(set(queries)), pa.string())}))
    consumed = events.impressions.filter(events.impressions.consumed).semi_join(wanted, "query")
    found = consumed.select("query", "doc_id").distinct().to_pyarrow()
    return set(zip(found["query"].to_pylist(), found["doc_id"].to_pylist(), strict=True))


def candidate_counts(events: LogEvents) -> tuple[int, int]:
    """Returns the numbers of distinct candidates that theta decides on: of the query level, and of the system level.

    They are counted with the default windows and without a threshold on the similarity of queries, since they only
    weigh the populations of `crops_jax.discriminator.populations`. In a log of more than a million searches they are
    the numbers of a sixteenth of the users, selected by the SHA-256 of the user id.
    """
    events = _sampled_users(events)
    of_queries = of_feed = 0
    if events.impressions is not None:
        later = query_level.reformulations(events)
        consumed = events.impressions.filter(events.impressions.consumed).select("search_id", "doc_id")
        of_queries = _distinct_pairs(later.join(consumed, later.via_search_id == consumed.search_id))
    if events.searches is not None and events.feed_views is not None:
        of_feed = _distinct_pairs(system_level.supports(events))
    return of_queries, of_feed


def _sampled_users(events: LogEvents) -> LogEvents:
    if events.searches is None or count(events.searches) <= _MAX_COUNTED_SEARCHES:
        return events
    parts = [
        table if table is None else table.filter(table.user_id.hexdigest("sha256").startswith("0")) for table in events
    ]
    return LogEvents(*parts)


def _distinct_pairs(table: ibis.Table) -> int:
    return count(table.select("query", "doc_id").distinct())
