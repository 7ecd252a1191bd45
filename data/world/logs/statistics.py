"""Statistics of a served world from its log and its truth. They show its plausibility and the possible improvements."""

from collections.abc import Sequence

import numpy as np

from data.world.behaviour.day import Day, Searches
from data.world.engine import Engine
from data.world.retrievers import top_k
from data.world.world import RELEVANT_GRADE, World

_REFORMULATION_INTERVAL_US = 90_000_000
_FEED_INTERVAL_US = 1_800_000_000
_RECALL_DEPTH = 100
_QUERIES_PER_BATCH = 256


def click_through_by_position(searches: Searches) -> list[float]:
    """Returns the number of clicks at each position, divided by the number of documents shown at it."""
    occupied = searches.pages.shown >= 0
    return [round(float(x), 4) for x in searches.clicked.sum(axis=0) / np.maximum(occupied.sum(axis=0), 1)]


def reformulation_rate(searches: Searches) -> float:
    """Returns RQR, the share of searches after which the same user types another query within 90 s."""
    order = np.lexsort((searches.time_us, searches.user))
    user, query, time = searches.user[order], searches.query[order], searches.time_us[order]
    followed = np.zeros(len(user), bool)
    for step in range(1, len(user)):
        near = (user[step:] == user[:-step]) & (time[step:] - time[:-step] <= _REFORMULATION_INTERVAL_US)
        if not near.any():
            break
        followed[:-step] |= near & (query[step:] != query[:-step]) & (time[step:] > time[:-step])
    return float(followed.mean())


def mean_grade_by_stage(world: World, searches: Searches) -> dict[str, float]:
    """Returns the mean grade of the shown, ranked, filtered and clicked documents for their queries."""
    means = {}
    for name, documents in searches.pages._asdict().items():
        row, column = np.nonzero(documents >= 0)
        grades = world.pair_grades(searches.query[row], documents[row, column])
        means[name] = round(float(grades.mean()), 3) if len(grades) else 0.0
    row, column = np.nonzero(searches.clicked)
    clicked = world.pair_grades(searches.query[row], searches.pages.shown[row, column])
    return {**means, "clicked": round(float(clicked.mean()), 3) if len(clicked) else 0.0}


def retrieval_against_truth(world: World, engine: Engine, searches: Searches) -> dict[str, float]:
    """Returns mean shares over the searched queries that have relevant documents.

    Returns:
      hidden_relevant: the share of the relevant documents that were never shown for the query.
      bm25_recall_at_100, ranker_recall_at_100: the share of the relevant documents that are among the 100 documents
        with the highest scores.
    """
    searched = np.unique(searches.query)
    row, column = np.nonzero(searches.pages.shown >= 0)
    seen = np.unique(searches.query[row] * len(world.documents) + searches.pages.shown[row, column])
    stock_size = len(world.documents)
    shares: dict[str, list[np.ndarray]] = {"hidden_relevant": [], "bm25_recall_at_100": [], "ranker_recall_at_100": []}
    for start in range(0, len(searched), _QUERIES_PER_BATCH):
        queries = searched[start : start + _QUERIES_PER_BATCH]
        texts = [world.queries.text[q] for q in queries]
        relevant = world.query_grades(queries) >= RELEVANT_GRADE
        keys = queries[:, None] * stock_size + np.arange(stock_size)
        total = relevant.sum(axis=1)
        lexical = engine.bm25.scores(texts, published=stock_size)
        lexical = top_k(np.where(lexical > 0, lexical, -np.inf), _RECALL_DEPTH)
        ranked = top_k(engine.ranking_scores(texts, published=stock_size), _RECALL_DEPTH)
        counts = {
            "hidden_relevant": (relevant & ~np.isin(keys, seen)).sum(axis=1),
            "bm25_recall_at_100": _count_relevant(relevant, lexical),
            "ranker_recall_at_100": _count_relevant(relevant, ranked),
        }
        for name, count in counts.items():
            shares[name].append((count / np.maximum(total, 1))[total > 0])
    joined = {name: np.concatenate(parts) for name, parts in shares.items()}
    return {name: round(float(part.mean()), 4) if len(part) else 0.0 for name, part in joined.items()}


def feed_novelty(world: World, days: Sequence[Day]) -> dict[str, float]:
    """Returns how much the feed adds to search, over pairs of a search and a feed view.

    The two of a pair are by the same user and at most 30 minutes apart.

    Returns:
      relevant: the share of pairs whose document is relevant to the query of the search.
      relevant_not_shown: the share of these pairs whose document no search showed for that query.
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
    horizon = int(max(time.max(), view_time.max(initial=0))) + 2 * _FEED_INTERVAL_US
    keys = view_user[order] * horizon + view_time[order]
    first = np.searchsorted(keys, user * horizon + time - _FEED_INTERVAL_US)
    last = np.searchsorted(keys, user * horizon + time + _FEED_INTERVAL_US, side="right")
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
    """Returns the searches of several days, concatenated."""
    parts = [day.searches for day in days]
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in Searches._fields if name != "pages"
    }
    pages = type(parts[0].pages)(*(np.concatenate(stage) for stage in zip(*(p.pages for p in parts), strict=True)))
    return Searches(pages=pages, **columns)


def _count_relevant(relevant: np.ndarray, retrieved: np.ndarray) -> np.ndarray:
    """Returns the number of relevant documents among the retrieved documents of each query."""
    hit = np.take_along_axis(relevant, np.maximum(retrieved, 0), axis=1) & (retrieved >= 0)
    return hit.sum(axis=1)
