"""Statistics of a served world, from its log and from its truth: whether it is plausible, and what can be gained."""

from collections.abc import Sequence

import numpy as np

from data.world.behaviour.day import Day, Searches
from data.world.engine import Engine
from data.world.retrievers import top_k
from data.world.world import RELEVANT_GRADE, World

_CHANGED_QUERY_US = 90_000_000
_AROUND_US = 1_800_000_000
_RECALL_DEPTH = 100
_QUERIES_AT_ONCE = 256


def click_through_by_position(searches: Searches) -> list[float]:
    """Clicks per document shown at each position."""
    there = searches.pages.shown >= 0
    return [round(float(x), 4) for x in searches.clicked.sum(axis=0) / np.maximum(there.sum(axis=0), 1)]


def reformulation_rate(searches: Searches) -> float:
    """RQR: share of searches that the same user follows within 90 s by another query."""
    order = np.lexsort((searches.time_us, searches.user))
    user, query, time = searches.user[order], searches.query[order], searches.time_us[order]
    followed = np.zeros(len(user), bool)
    for step in range(1, len(user)):
        near = (user[step:] == user[:-step]) & (time[step:] - time[:-step] <= _CHANGED_QUERY_US)
        if not near.any():
            break
        followed[:-step] |= near & (query[step:] != query[:-step]) & (time[step:] > time[:-step])
    return float(followed.mean())


def mean_grade_by_stage(world: World, searches: Searches) -> dict[str, float]:
    """Mean grade for the query of what was filtered, ranked and shown, and of what was clicked."""
    means = {}
    for name, documents in searches.pages._asdict().items():
        row, place = np.nonzero(documents >= 0)
        grades = world.pair_grades(searches.query[row], documents[row, place])
        means[name] = round(float(grades.mean()), 3) if len(grades) else 0.0
    row, place = np.nonzero(searches.clicked)
    clicked = world.pair_grades(searches.query[row], searches.pages.shown[row, place])
    return {**means, "clicked": round(float(clicked.mean()), 3) if len(clicked) else 0.0}


def retrieval_against_truth(world: World, engine: Engine, searches: Searches) -> dict[str, float]:
    """Returns statistics of the documents that are relevant to the searched queries, as mean shares of a query.

    Returns:
      hidden_relevant: never shown for the query; and, for each retriever, its recall in the first 100.
    """
    asked = np.unique(searches.query)
    row, place = np.nonzero(searches.pages.shown >= 0)
    seen = np.unique(searches.query[row] * len(world.documents) + searches.pages.shown[row, place])
    stock_size = len(world.documents)
    shares: dict[str, list[np.ndarray]] = {"hidden_relevant": [], "bm25_recall_at_100": [], "ranker_recall_at_100": []}
    for start in range(0, len(asked), _QUERIES_AT_ONCE):
        queries = asked[start : start + _QUERIES_AT_ONCE]
        texts = [world.queries.text[q] for q in queries]
        relevant = world.query_grades(queries) >= RELEVANT_GRADE
        keys = queries[:, None] * stock_size + np.arange(stock_size)
        total = relevant.sum(axis=1)
        lexical = engine.bm25.scores(texts, published=stock_size)
        lexical = top_k(np.where(lexical > 0, lexical, -np.inf), _RECALL_DEPTH)
        ranked = top_k(engine.ranking_scores(texts, published=stock_size), _RECALL_DEPTH)
        counts = {
            "hidden_relevant": (relevant & ~np.isin(keys, seen)).sum(axis=1),
            "bm25_recall_at_100": _found(relevant, lexical),
            "ranker_recall_at_100": _found(relevant, ranked),
        }
        for name, count in counts.items():
            shares[name].append((count / np.maximum(total, 1))[total > 0])
    joined = {name: np.concatenate(parts) for name, parts in shares.items()}
    return {name: round(float(part.mean()), 4) if len(part) else 0.0 for name, part in joined.items()}


def feed_novelty(world: World, days: Sequence[Day]) -> dict[str, float]:
    """Returns what the feed adds to search, over (search, feed view within 30 minutes, same user) pairs.

    Returns:
      relevant: share of pairs whose document is relevant to the search's query.
      relevant_not_shown: share of those that no search showed for that query.
    """
    searches = [day.searches for day in days]
    user = np.concatenate([part.user for part in searches])
    time = np.concatenate([part.time_us for part in searches])
    query = np.concatenate([part.query for part in searches])
    shown = np.unique(
        np.concatenate(
            [
                (part.query[:, None] * len(world.documents) + part.pages.shown)[part.pages.shown >= 0]
                for part in searches
            ]
        )
    )
    view_user = np.concatenate([day.feed.user for day in days])
    view_time = np.concatenate([day.feed.time_us for day in days])
    view_document = np.concatenate([day.feed.document for day in days])
    order = np.lexsort((view_time, view_user))
    horizon = int(max(time.max(), view_time.max(initial=0))) + 2 * _AROUND_US
    keys = view_user[order] * horizon + view_time[order]
    first = np.searchsorted(keys, user * horizon + time - _AROUND_US)
    last = np.searchsorted(keys, user * horizon + time + _AROUND_US, side="right")
    pair_search = np.repeat(np.arange(len(user)), last - first)
    within = np.arange(len(pair_search)) - np.repeat(np.cumsum(last - first) - (last - first), last - first)
    document = view_document[order][np.repeat(first, last - first) + within]
    if not len(document):
        return {"relevant": 0.0, "relevant_not_shown": 0.0}
    relevant = world.pair_grades(query[pair_search], document) >= RELEVANT_GRADE
    new = ~np.isin(query[pair_search] * len(world.documents) + document, shown)
    return {
        "relevant": round(float(relevant.mean()), 4),
        "relevant_not_shown": round(float(new[relevant].mean()), 4) if relevant.any() else 0.0,
    }


def joined_searches(days: Sequence[Day]) -> Searches:
    """The searches of several days as one."""
    parts = [day.searches for day in days]
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in Searches._fields if name != "pages"
    }
    pages = type(parts[0].pages)(*(np.concatenate(stage) for stage in zip(*(p.pages for p in parts), strict=True)))
    return Searches(pages=pages, **columns)


def _found(relevant: np.ndarray, retrieved: np.ndarray) -> np.ndarray:
    hit = np.take_along_axis(relevant, np.maximum(retrieved, 0), axis=1) & (retrieved >= 0)
    return hit.sum(axis=1)
