"""The recall channels that know behaviour and categories instead of texts, as a search engine in service has them.

Popular documents of the query's category; documents that users clicked who clicked what was clicked for the query
(item to item); documents that were clicked for queries with the same words; and any documents of the category. They see
past clicks and the categories that authors chose, never the truth of the world.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from data.world.behaviour.clicks import attractiveness
from data.world.retrievers import LatentSpace, Retriever, Stock, top_k_of_matches, values_at
from data.world.truth.lexicon import draw_from_rows
from data.world.world import World

# The documents of a query that were clicked most often are looked up for items that are similar to them.
_SEEDS = 5
_SIMILAR_PER_SEED = 20


class Clicks(NamedTuple):
    """The clicks of some days."""

    user: Int[np.ndarray, "clicks"]
    query: Sequence[str]
    """The normalised query of each click."""
    document: Int[np.ndarray, "clicks"]


@dataclass(frozen=True)
class Categories:
    """The category of each document, as its author chose it, and of queries, as the engine guesses it."""

    space: LatentSpace
    of_document: Int[np.ndarray, "documents"]
    count: int
    fitted_on: int
    """The number of documents, the first ones, that the guess knows."""

    @cached_property
    def _centres(self) -> Float[np.ndarray, "categories dimensions"]:
        centres = np.zeros((self.count, self.space.documents.shape[1]))
        np.add.at(centres, self.of_document[: self.fitted_on], self.space.documents[: self.fitted_on])
        return centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)

    def of_queries(self, queries: Sequence[str]) -> Int[np.ndarray, "queries"]:
        """Returns the category whose mean document is nearest to each query."""
        return np.argmax(np.round(self.space.encode(queries) @ self._centres.T, 6), axis=1)

    def members(self, category: int, stock: Stock) -> Int[np.ndarray, "members"]:
        """Returns the published documents of a category, oldest first."""
        return np.flatnonzero(self.of_document[: stock.published] == category)


@dataclass(frozen=True)
class PopularInCategory:
    """Recalls the documents of the query's category that have the most clicks; of equal ones the older first."""

    categories: Categories

    def __call__(self, queries: Sequence[str], stock: Stock, *, k: int) -> Int[np.ndarray, "queries k"]:
        category, which = np.unique(self.categories.of_queries(queries), return_inverse=True)
        best = np.full((len(category), k), -1, np.int32)
        for row, number in enumerate(category):
            members = self.categories.members(int(number), stock)
            found = members[np.argsort(-stock.popularity[members], kind="stable")[:k]]
            best[row, : len(found)] = found
        return best[which]


@dataclass(frozen=True)
class AnyInCategory:
    """Recalls documents of the query's category at random: other ones for every query, and for a query every day."""

    categories: Categories

    def __call__(self, queries: Sequence[str], stock: Stock, *, k: int) -> Int[np.ndarray, "queries k"]:
        found = np.full((len(queries), k), -1, np.int32)
        members: dict[int, np.ndarray] = {}
        for row, (query, category) in enumerate(zip(queries, self.categories.of_queries(queries), strict=True)):
            if category not in members:
                members[category] = self.categories.members(int(category), stock)
            there = members[category]
            # A generator of the query's own: what a query recalls does not depend on the other queries of the batch.
            rng = np.random.Generator(np.random.PCG64([zlib.crc32(query.encode()), stock.published]))
            chosen = rng.permutation(len(there))[:k] if len(there) <= k else rng.choice(len(there), k, replace=False)
            found[row, : len(chosen)] = there[chosen]
        return found


@dataclass(frozen=True)
class SimilarItems:
    """Item to item: documents whose users are those of the documents that were clicked for the query.

    The similarity of two documents is the cosine of their columns in the table of users and clicked documents. A query
    starts from the documents that were clicked for it most often; a query without clicks recalls nothing.
    """

    documents: int
    clicks: tuple[Clicks, ...] = ()

    def after(self, clicks: Clicks) -> "SimilarItems":
        """Returns the channel of the next day."""
        return SimilarItems(self.documents, (*self.clicks, clicks))

    def __call__(self, queries: Sequence[str], stock: Stock, *, k: int) -> Int[np.ndarray, "queries k"]:
        found = np.full((len(queries), k), -1, np.int32)
        for row, query in enumerate(queries):
            lists = [self._neighbours(seed, stock.published) for seed in self._seeds.get(query, ())]
            # The seeds' lists in turn: the nearest of each, then the second of each.
            longest = max(map(len, lists), default=0)
            ordered = [int(each[i]) for i in range(longest) for each in lists if i < len(each)]
            distinct = list(dict.fromkeys(ordered))[:k]
            found[row, : len(distinct)] = distinct
        return found

    @cached_property
    def _seeds(self) -> dict[str, list[int]]:
        """The most clicked documents of each query."""
        counts: dict[str, dict[int, int]] = {}
        for day in self.clicks:
            for query, document in zip(day.query, day.document.tolist(), strict=True):
                of_query = counts.setdefault(query, {})
                of_query[document] = of_query.get(document, 0) + 1
        return {
            query: sorted(of_query, key=lambda document: (-of_query[document], document))[:_SEEDS]
            for query, of_query in counts.items()
        }

    @cached_property
    def _similarity(self) -> scipy.sparse.csr_matrix:
        user = np.concatenate([day.user for day in self.clicks])
        document = np.concatenate([day.document for day in self.clicks])
        shape = (int(user.max(initial=0)) + 1, self.documents)
        clicked = scipy.sparse.csr_matrix((np.ones(len(user)), (user, document)), shape=shape)
        clicked.data[:] = 1
        norms = np.sqrt(np.maximum(np.asarray(clicked.sum(axis=0)).ravel(), 1))
        clicked = scipy.sparse.csr_matrix(clicked.multiply(1 / norms))
        return scipy.sparse.csr_matrix(clicked.T @ clicked)

    def _neighbours(self, document: int, published: int) -> np.ndarray:
        """Returns the nearest documents, itself first."""
        known = self._nearest
        if document not in known:
            start, end = self._similarity.indptr[document : document + 2]
            near, value = self._similarity.indices[start:end], self._similarity.data[start:end]
            order = np.lexsort((near, -np.round(value, 6), near != document))
            known[document] = near[order][:_SIMILAR_PER_SEED]
        return known[document][known[document] < published]

    @cached_property
    def _nearest(self) -> dict[int, np.ndarray]:
        return {}


@dataclass(frozen=True)
class ClickedWords:
    """Recalls documents by the words of the queries that they were clicked for.

    Score: the cosine of the query's words and the document's, with weights log(1 + clicks) log(N / n) for N documents
    with clicks, n of them with the word. It knows the words of users, and nothing of documents without clicks.
    """

    documents: int
    clicks: tuple[Clicks, ...] = ()

    def after(self, clicks: Clicks) -> "ClickedWords":
        """Returns the channel of the next day."""
        return ClickedWords(self.documents, (*self.clicks, clicks))

    def __call__(self, queries: Sequence[str], stock: Stock, *, k: int) -> Int[np.ndarray, "queries k"]:
        return top_k_of_matches(self._matches(queries, stock.published), k)

    def cosines(
        self, queries: Sequence[str], documents: Int[np.ndarray, "queries k"], *, published: int
    ) -> Float[np.ndarray, "queries k"]:
        """Returns the score of each document for its query, in [0, 1]."""
        return values_at(self._matches(queries, published), documents)

    def _matches(self, queries: Sequence[str], published: int) -> scipy.sparse.csr_matrix:
        columns = self._columns
        words = [[columns[word] for word in dict.fromkeys(query.split()) if word in columns] for query in queries]
        row = np.repeat(np.arange(len(queries)), [len(each) for each in words])
        column = np.array([word for each in words for word in each], np.int64)
        weights = scipy.sparse.csr_matrix((self._rarity[column], (row, column)), (len(queries), max(len(columns), 1)))
        return scipy.sparse.csr_matrix(_unit_rows(weights) @ self._weights[:published].T)

    @cached_property
    def _columns(self) -> dict[str, int]:
        words = (word for clicks in self.clicks for query in clicks.query for word in query.split())
        return {word: column for column, word in enumerate(dict.fromkeys(words))}

    @cached_property
    def _counts(self) -> scipy.sparse.csr_matrix:
        document, column = [], []
        for clicks in self.clicks:
            for query, clicked in zip(clicks.query, clicks.document.tolist(), strict=True):
                for word in dict.fromkeys(query.split()):
                    document.append(clicked)
                    column.append(self._columns[word])
        shape = (self.documents, max(len(self._columns), 1))
        return scipy.sparse.csr_matrix((np.ones(len(column)), (np.array(document, np.int64), column)), shape)

    @cached_property
    def _rarity(self) -> Float[np.ndarray, "words"]:
        clicked = int((self._counts.getnnz(axis=1) > 0).sum())
        return np.log((1 + clicked) / np.maximum(self._counts.getnnz(axis=0), 1))

    @cached_property
    def _weights(self) -> scipy.sparse.csr_matrix:
        weights = self._counts.copy()
        weights.data = np.log1p(weights.data) * self._rarity[weights.indices]
        return _unit_rows(weights)


def _unit_rows(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    scaled = matrix.copy()
    scaled.data = matrix.data / np.repeat(np.maximum(norms, 1e-12), np.diff(matrix.indptr))
    return scaled


def draw_initial_clicks(world: World) -> Clicks:
    """Draws clicks from before the first day: `initial_clicks` users with a need each click one of two documents.

    A user with an intent looks at a document of its topic and entity, chosen by popularity, and clicks it by its
    attractiveness; users who do not click it click another document of the topic, chosen likewise. All users are
    strangers to the later ones, so the clicks count for queries and not for users.
    """
    constants, queries, rng = world.constants, world.queries, world.streams.generator("initial clicks")
    query = rng.choice(len(queries), constants.initial_clicks, p=queries.popularity)
    intent = queries.intents[query, draw_from_rows(queries.intent_shares[query], rng.random(len(query)))]
    topic, _, _ = world.split_intents(intent)
    entity_document = _draw_popular(world, world.entity_group, intent // constants.facets, rng.random(len(query)))
    topic_document = _draw_popular(world, world.documents.subject.topic, topic, rng.random(len(query)))
    grades = world.intent_grades(intent, np.maximum(entity_document, 0))
    chance = attractiveness(grades, noise=constants.click_noise, ceiling=1.0)
    document = np.where((entity_document >= 0) & (rng.random(len(query)) < chance), entity_document, topic_document)
    known = document >= 0
    texts = [queries.text[number] for number in query[known]]
    return Clicks(np.full(int(known.sum()), -1), texts, document[known])


def _draw_popular(world: World, group: np.ndarray, wanted: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Draws a document of each wanted group by its clicks from before the first day; -1 where none has clicks."""
    order = np.argsort(group, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(world.initial_popularity[order])])
    low, high = (total[np.searchsorted(group[order], wanted, side=side)] for side in ("left", "right"))
    place = np.searchsorted(total, low + uniforms * (high - low), side="right") - 1
    return np.where(high > low, order[np.clip(place, 0, len(order) - 1)], -1)


def behavioural_channels(world: World, space: LatentSpace, *, published: int) -> dict[str, tuple[Retriever, int]]:
    """Returns the channels that have a depth, each with it.

    Args:
      world: the world, for the categories that authors chose.
      space: a latent space, by which the engine guesses the categories of queries.
      published: the number of documents before the first day.
    """
    constants = world.constants
    rng = world.streams.generator("categories")
    topic = world.documents.subject.topic.astype(np.int64)
    wrong = rng.random(len(topic)) < constants.category_error_share
    chosen = np.where(wrong, rng.integers(0, constants.topics, len(topic)), topic)
    categories = Categories(space, chosen, constants.topics, published)
    channels: dict[str, tuple[Retriever, int]] = {
        "popular": (PopularInCategory(categories), constants.popular_depth),
        "similar_items": (SimilarItems(len(topic)), constants.similar_items_depth),
        "clicked_words": (ClickedWords(len(topic), (draw_initial_clicks(world),)), constants.clicked_words_depth),
        "category": (AnyInCategory(categories), constants.category_depth),
    }
    return {name: (channel, depth) for name, (channel, depth) in channels.items() if depth}
