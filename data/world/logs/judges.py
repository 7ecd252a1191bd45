"""Graded judgements: the true grades of a pool of documents for each query."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from crops_jax.hashing import split_by_hash
from crops_jax.text import normalise_query
from data.world.behaviour.day import Day
from data.world.engine import Engine
from data.world.logs.truth_table import find_relevant
from data.world.retrievers import Stock, top_k
from data.world.world import World

_QUERIES_PER_BATCH = 256


def judge(world: World, engine: Engine, days: Sequence[Day]) -> pa.Table:
    """Returns the table judgements with the columns query, doc_id, grade (0 to 3) and split.

    The pool of a query contains the documents that any day showed for it, the documents with the highest BM25 scores,
    those with the highest ranking scores, relevant documents that are drawn from the truth (so that documents that the
    engine does not retrieve are judged too), and random documents of any grade.
    """
    constants, documents = world.constants, world.documents
    rng = world.streams.generator("judges")
    shown, stock = _find_shown_pairs(days), Stock(len(documents), engine.popularity)
    rows, columns = [], []
    judged = _choose_queries(world)
    for start in range(0, len(judged), _QUERIES_PER_BATCH):
        queries = judged[start : start + _QUERIES_PER_BATCH]
        texts = [world.queries.text[q] for q in queries]
        relevant = np.zeros((len(queries), len(documents)), bool)
        pairs = find_relevant(world, queries)
        relevant[np.searchsorted(queries, pairs.query), pairs.document] = True
        priority = rng.random(relevant.shape)
        pooled = [
            engine.bm25(texts, stock, k=constants.judged_depth),
            top_k(engine.ranking_scores(texts, published=len(documents)), constants.judged_depth),
            top_k(np.where(relevant, priority, -np.inf), constants.judged_relevant),
            rng.integers(0, len(documents), (len(queries), constants.judged_random)),
        ]
        pool = np.zeros(relevant.shape, bool)
        for retrieved in pooled:
            row, column = np.nonzero(retrieved >= 0)
            pool[row, retrieved[row, column]] = True
        shown_pairs = shown[np.isin(shown[:, 0], queries)]
        pool[np.searchsorted(queries, shown_pairs[:, 0]), shown_pairs[:, 1]] = True
        row, column = np.nonzero(pool)
        rows.append(queries[row])
        columns.append(column)
    query, document = np.concatenate(rows), np.concatenate(columns)
    text = pa.array(world.queries.text, pa.string())
    split = pa.array([split_of(text) for text in world.queries.text], pa.string())
    return pa.table(
        {
            "query": text.take(pa.array(query)),
            "doc_id": pa.array(documents.doc_id, pa.string()).take(pa.array(document)),
            "grade": pa.array(world.pair_grades(query, document).astype(np.float64)),
            "split": split.take(pa.array(query)),
        }
    )


def _choose_queries(world: World) -> np.ndarray:
    """Returns the queries that are judged, in ascending order: a random share of all, at least one."""
    queries, share = len(world.queries), world.constants.judged_query_share
    if share == 1:
        return np.arange(queries)
    rng = world.streams.generator("judged queries")
    return np.sort(rng.permutation(queries)[: max(round(share * queries), 1)])


def split_of(query: str) -> str:
    """Returns "train", "dev" or "test", by a hash of the normalised query."""
    return split_by_hash(normalise_query(query))


def _find_shown_pairs(days: Sequence[Day]) -> np.ndarray:
    """Returns the distinct (query, document) pairs that any search showed, [pairs, 2]."""
    pairs = []
    for day in days:
        row, column = np.nonzero(day.searches.pages.shown >= 0)
        pairs.append(np.stack([day.searches.query[row], day.searches.pages.shown[row, column]], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)
