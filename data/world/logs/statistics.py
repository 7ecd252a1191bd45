"""Statistics of a served world from its log and its truth. They show its plausibility and the possible improvements."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.world.behaviour.day import Day, Searches
from data.world.engine import Engine
from data.world.logs.truth_table import find_relevant, mark_shown, searched_queries
from data.world.retrievers import Stock, top_k
from data.world.world import RELEVANT_GRADE, World

CHANGED_QUERY_US = 90_000_000
_FEED_INTERVAL_US = 1_800_000_000
_RECALL_DEPTH = 100
_NDCG_DEPTH = 4
_QUERIES_OF_A_SAMPLE = 1024
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
        near = (user[step:] == user[:-step]) & (time[step:] - time[:-step] <= CHANGED_QUERY_US)
        if not near.any():
            break
        followed[:-step] |= near & (query[step:] != query[:-step]) & (time[step:] > time[:-step])
    return float(followed.mean())


def seconds_to_reformulation(searches: Searches) -> float | None:
    """Returns the median time to the next search of the same user, if that has another query within half an hour."""
    order = np.lexsort((searches.time_us, searches.user))
    user, query, time = searches.user[order], searches.query[order], searches.time_us[order]
    gap = np.diff(time)
    changed = (user[1:] == user[:-1]) & (query[1:] != query[:-1]) & (gap > 0) & (gap <= _FEED_INTERVAL_US)
    return round(float(np.median(gap[changed])) / 1e6, 1) if changed.any() else None


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


def retrieval_against_truth(world: World, engine: Engine, days: Sequence[Day]) -> dict[str, float]:
    """Returns mean shares over the searched queries that have relevant documents.

    Returns:
      hidden_relevant: the share of the relevant documents that were never shown for the query.
      bm25_recall_at_100, ranker_recall_at_100: the share of the relevant documents that are among the 100 documents
        with the highest scores, over at most 1,024 queries.
    """
    searched, size = searched_queries(days), len(world.documents)
    pairs = find_relevant(world, searched)
    shares = {"hidden_relevant": _mean_share(pairs.query, ~mark_shown(world, days, pairs))}
    queries = searched[:: -(-len(searched) // _QUERIES_OF_A_SAMPLE)]
    sampled = np.isin(pairs.query, queries)
    query, document = pairs.query[sampled], pairs.document[sampled]
    found: dict[str, list[np.ndarray]] = {"bm25_recall_at_100": [], "ranker_recall_at_100": []}
    for start in range(0, len(queries), _QUERIES_PER_BATCH):
        texts = [world.queries.text[q] for q in queries[start : start + _QUERIES_PER_BATCH]]
        found["bm25_recall_at_100"].append(engine.bm25(texts, Stock(size, engine.popularity), k=_RECALL_DEPTH))
        found["ranker_recall_at_100"].append(top_k(engine.ranking_scores(texts, published=size), _RECALL_DEPTH))
    rows = np.searchsorted(queries, query)
    for name, parts in found.items():
        retrieved = np.concatenate(parts)[rows]
        shares[name] = _mean_share(query, (retrieved == document[:, None]).any(axis=1))
    return shares


def relevant_shares(world: World, searches: Searches) -> dict[str, float]:
    """Returns the share of relevant documents, by the intent of the user, among all shown, clicked and other ones."""
    shown = searches.pages.shown
    relevant = world.intent_grades(searches.intent[:, None], np.maximum(shown, 0)) >= RELEVANT_GRADE
    there = shown >= 0
    parts = {"shown": there, "clicked": searches.clicked, "not_clicked": there & ~searches.clicked}
    return {name: round(float(relevant[part].mean()), 4) if part.any() else 0.0 for name, part in parts.items()}


def clicks_by_position(searches: Searches) -> dict[str, float]:
    """Returns the shares of the clicks that are on the first, on the first three, and on the positions from 6."""
    clicks = searches.clicked.sum(axis=0) / max(searches.clicked.sum(), 1)
    shares = {"first": clicks[:1], "first_three": clicks[:3], "from_sixth": clicks[5:]}
    return {name: round(float(share.sum()), 4) for name, share in shares.items()}


def known_test_shares(days: Sequence[Day]) -> dict[str, float]:
    """Returns the shares of the last day's queries that were searched before, and of its clicked pairs, clicked."""
    if len(days) < 2:
        return {"queries": 0.0, "clicked_pairs": 0.0}
    before, last = joined_searches(days[:-1]), days[-1].searches
    queries = np.unique(last.query)

    def pairs(searches: Searches) -> np.ndarray:
        row, position = np.nonzero(searches.clicked)
        return np.unique(searches.query[row].astype(np.int64) << 32 | searches.pages.shown[row, position])

    known = {"queries": np.isin(queries, before.query), "clicked_pairs": np.isin(pairs(last), pairs(before))}
    return {name: round(float(found.mean()), 4) if len(found) else 0.0 for name, found in known.items()}


def users_who_search(world: World, days: Sequence[Day]) -> float:
    """Returns the share of the users active on a day, in search or in the feed, who search on it; a mean over days."""
    shares = []
    for day in days:
        searching = np.unique(day.searches.user)
        shares.append(len(searching) / max(len(np.union1d(searching, day.feed.user)), 1))
    return round(float(np.mean(shares)), 4)


def lexical_ndcg(world: World, engine: Engine, judgements: pa.Table) -> float | None:
    """Returns the mean NDCG@4 of BM25 on the judged test queries; documents without a judgement have gain 0.

    The gain is the grade, the discount of rank r is log2(r + 1), as in launch.evaluate.
    """
    number = {text: query for query, text in enumerate(world.queries.text)}
    index = {doc_id: document for document, doc_id in enumerate(world.documents.doc_id)}
    grades: dict[int, dict[int, float]] = {}
    for row in judgements.filter(pc.equal(judgements["split"], "test")).to_pylist():
        grades.setdefault(number[row["query"]], {})[index[row["doc_id"]]] = row["grade"]
    queries = [query for query, graded in grades.items() if max(graded.values()) > 0]
    if not queries:
        return None
    stock = Stock(len(world.documents), engine.popularity)
    found = engine.bm25([world.queries.text[query] for query in queries], stock, k=_NDCG_DEPTH)
    discount = 1 / np.log2(np.arange(2, _NDCG_DEPTH + 2))
    values = []
    for query, documents in zip(queries, found, strict=True):
        gains = [grades[query].get(int(document), 0.0) for document in documents]
        best = sorted(grades[query].values(), reverse=True)[:_NDCG_DEPTH]
        values.append(float(np.dot(gains, discount) / np.dot(best, discount[: len(best)])))
    return round(float(np.mean(values)), 4)


def _mean_share(query: np.ndarray, marked: np.ndarray) -> float:
    """Returns the mean over queries of the share of their rows that are marked."""
    if not len(query):
        return 0.0
    _, group = np.unique(query, return_inverse=True)
    return round(float((np.bincount(group, marked) / np.bincount(group)).mean()), 4)


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
