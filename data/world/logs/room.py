"""The room that a world leaves to retrievers: what simple ones, the present engine and the truth itself recall.

The test is that of the last day, as data.hold_out makes it. CT: for each query, the documents that were clicked for it.
QR: for each query that a user changed within 90 s, the documents that the user then clicked and that are relevant for
the first query by the truth. The pool is what the index held on that day.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from data.world.behaviour.day import Day, Searches
from data.world.engine import Engine
from data.world.logs.statistics import CHANGED_QUERY_US, joined_searches
from data.world.logs.truth_table import find_relevant
from data.world.retrievers import Stock
from data.world.world import RELEVANT_GRADE, World

DEPTH = 100
_QUERIES_PER_BATCH = 256


class Wanted(NamedTuple):
    """Pairs of a query and a document that should be recalled for it: distinct, sorted by query and document."""

    query: Int[np.ndarray, "pairs"]
    document: Int[np.ndarray, "pairs"]


def measure_room(
    world: World, engine: Engine, days: Sequence[Day], *, test_from_us: int, published: int
) -> dict[str, Any]:
    """Returns for bm25, present_engine, random and oracle the ct_recall@100 and qr_recall@100 on the last day.

    The recalls are means over queries. `present_engine` is what its channels recall, ordered by its ranking score
    without noise; `random` is the expected recall of a random order; `oracle` knows the relevant documents, and
    retrieves those of the greatest grade and quality. `channels` has the click-test recall of each channel alone, and
    the share of the clicked documents that it recalls at its own depth.

    Args:
      world: the world.
      engine: the engine that served the last day, with the popularity of its morning.
      days: the served days.
      test_from_us: the start of the test period, in microseconds since 1970.
      published: the number of documents in the index during the test period.
    """
    searches = joined_searches(days)
    clicked = clicked_pairs(searches, from_us=test_from_us)
    changed = pairs_after_change(world, searches, from_us=test_from_us)
    queries = np.union1d(clicked.query, changed.query)
    retrieved = _retrieve(world, engine, queries, published)
    tests = {"ct": clicked, "qr": changed}
    room: dict[str, Any] = {
        name: {f"{test}_recall@{DEPTH}": _rounded(recall(pairs, queries, found)) for test, pairs in tests.items()}
        for name, found in retrieved["systems"].items()
    }
    expected = min(1.0, DEPTH / max(published, 1))
    room["random"] = {
        f"{test}_recall@{DEPTH}": _rounded(expected if len(pairs.query) else None) for test, pairs in tests.items()
    }
    room["channels"] = {
        name: {
            f"ct_recall@{DEPTH}": _rounded(recall(clicked, queries, found)),
            "share_of_clicks": _rounded(_share(clicked, queries, found[:, : engine.depth(name)])),
        }
        for name, found in retrieved["channels"].items()
    }
    return room | {"ct_queries": len(np.unique(clicked.query)), "qr_queries": len(np.unique(changed.query))}


def clicked_pairs(searches: Searches, *, from_us: int) -> Wanted:
    """Returns the distinct pairs of a query and a document that was clicked for it at that time or later."""
    row, position = np.nonzero(searches.clicked & (searches.time_us >= from_us)[:, None])
    return _distinct(searches.query[row], searches.pages.shown[row, position])


def pairs_after_change(world: World, searches: Searches, *, from_us: int) -> Wanted:
    """Returns the relevant documents that users clicked within 90 s after they changed a query, with the first query.

    Every later query of the user within 90 s counts, not only the next one, and both searches are in the test period.
    """
    rows = np.flatnonzero(searches.time_us >= from_us)
    order = rows[np.lexsort((searches.time_us[rows], searches.user[rows]))]
    user, query, time = searches.user[order], searches.query[order], searches.time_us[order]
    first, later = [], []
    for step in range(1, len(order)):
        near = (user[step:] == user[:-step]) & (time[step:] - time[:-step] <= CHANGED_QUERY_US)
        if not near.any():
            break
        near &= (query[step:] != query[:-step]) & (time[step:] > time[:-step])
        first.append(np.flatnonzero(near))
        later.append(np.flatnonzero(near) + step)
    if not first:
        return _distinct(np.empty(0, np.int64), np.empty(0, np.int64))
    first, later = query[np.concatenate(first)], order[np.concatenate(later)]
    row, position = np.nonzero(searches.clicked[later])
    query, document = first[row], searches.pages.shown[later[row], position]
    relevant = world.pair_grades(query, document) >= RELEVANT_GRADE
    return _distinct(query[relevant], document[relevant])


def recall(
    wanted: Wanted, queries: Int[np.ndarray, "queries"], retrieved: Int[np.ndarray, "queries depth"]
) -> float | None:
    """Returns the mean over the wanted queries of the share of their documents that are retrieved; None without any.

    Args:
      wanted: the pairs.
      queries: the query of each row of `retrieved`, in ascending order.
      retrieved: the documents of each query; -1 is padding.
    """
    if not len(wanted.query):
        return None
    hit = _hits(wanted, queries, retrieved)
    _, group = np.unique(wanted.query, return_inverse=True)
    return float((np.bincount(group, hit) / np.bincount(group)).mean())


def _share(wanted: Wanted, queries: np.ndarray, retrieved: np.ndarray) -> float | None:
    return float(_hits(wanted, queries, retrieved).mean()) if len(wanted.query) else None


def _hits(wanted: Wanted, queries: np.ndarray, retrieved: np.ndarray) -> np.ndarray:
    rows = np.searchsorted(queries, wanted.query)
    return (retrieved[rows] == wanted.document[:, None]).any(axis=1)


def _retrieve(
    world: World, engine: Engine, queries: np.ndarray, published: int
) -> dict[str, Mapping[str, Int[np.ndarray, "queries depth"]]]:
    """Returns the first documents of each system, and of each channel of the engine, for each query."""
    texts = [world.queries.text[query] for query in queries]
    stock = Stock(published, engine.popularity)
    channels = {}
    for name, retrieve in engine.retrievers.items():
        parts = [
            retrieve(texts[start : start + _QUERIES_PER_BATCH], stock, k=DEPTH)
            for start in range(0, len(texts), _QUERIES_PER_BATCH)
        ]
        channels[name] = np.concatenate([np.empty((0, DEPTH), np.int64), *parts])
    lexical = channels.get("bm25", np.full((len(queries), DEPTH), -1))
    systems = {
        "bm25": lexical,
        "present_engine": engine.first(texts, published=published, k=DEPTH)
        if texts
        else np.empty((0, DEPTH), np.int64),
        "oracle": _know(world, queries, published),
    }
    return {"systems": systems, "channels": channels}


def _know(world: World, queries: np.ndarray, published: int) -> np.ndarray:
    """Returns the published relevant documents of each query, by grade, then by quality."""
    pairs = find_relevant(world, queries)
    there = pairs.document < published
    query, document, grade = pairs.query[there], pairs.document[there], pairs.grade[there]
    order = np.lexsort((document, -world.documents.quality[document], -grade.astype(np.int64), query))
    query, document = query[order], document[order]
    row = np.searchsorted(queries, query)
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    found = np.full((len(queries), DEPTH), -1)
    kept = rank < DEPTH
    found[row[kept], rank[kept]] = document[kept]
    return found


def _distinct(query: np.ndarray, document: np.ndarray) -> Wanted:
    pairs = np.unique(np.stack([query, document], axis=1).astype(np.int64), axis=0)
    return Wanted(pairs[:, 0], pairs[:, 1])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
