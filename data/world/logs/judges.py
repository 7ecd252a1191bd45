"""Graded judgements: the true grades of a pool of documents for each query."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from crops_jax.hashing import split_by_hash
from crops_jax.text import normalise_query
from data.world.behaviour.day import Day
from data.world.engine import Engine
from data.world.retrievers import top_k
from data.world.world import RELEVANT_GRADE, World

_QUERIES_PER_BATCH = 256


def judge(world: World, engine: Engine, days: Sequence[Day]) -> pa.Table:
    """Returns the table judgements with the columns query, doc_id, grade (0 to 3) and split.

    The pool of a query contains the documents that any day showed for it, the documents with the highest BM25 scores,
    those with the highest ranking scores, relevant documents that are drawn from the truth (so that documents that the
    engine does not retrieve are judged too), and random documents of any grade.
    """
    constants, documents = world.constants, world.documents
    rng = world.streams.generator("judges")
    shown = _find_shown_pairs(days)
    rows, columns = [], []
    for start in range(0, len(world.queries), _QUERIES_PER_BATCH):
        queries = np.arange(start, min(start + _QUERIES_PER_BATCH, len(world.queries)))
        texts = [world.queries.text[q] for q in queries]
        lexical = engine.bm25.scores(texts, published=len(documents))
        relevant = world.query_grades(queries) >= RELEVANT_GRADE
        priority = rng.random(relevant.shape)
        pooled = [
            top_k(np.where(lexical > 0, lexical, -np.inf), constants.judged_depth),
            top_k(engine.ranking_scores(texts, published=len(documents)), constants.judged_depth),
            top_k(np.where(relevant, priority, -np.inf), constants.judged_relevant),
            rng.integers(0, len(documents), (len(queries), constants.judged_random)),
        ]
        pool = np.zeros(relevant.shape, bool)
        for retrieved in pooled:
            row, column = np.nonzero(retrieved >= 0)
            pool[row, retrieved[row, column]] = True
        shown_pairs = shown[(shown[:, 0] >= start) & (shown[:, 0] < start + len(queries))]
        pool[shown_pairs[:, 0] - start, shown_pairs[:, 1]] = True
        row, column = np.nonzero(pool)
        rows.append(row + start)
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
