"""The stages of the search engine: recall -> pre-rank -> rank -> show.

The engine uses texts and past clicks, and never the truth of the world.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from crops_jax.text import document_text
from data.world.channels import ClickedWords, Clicks, SimilarItems, behavioural_channels
from data.world.constants import WorldConstants
from data.world.retrievers import (
    Bm25,
    LatentRetriever,
    LatentSpace,
    Retriever,
    Stock,
    Terms,
    relative_popularity,
    top_k,
)
from data.world.world import World

_QUERIES_PER_BATCH = 256


class Pages(NamedTuple):
    """The candidates of each search by the last stage that they reached, as document numbers; -1 is padding."""

    shown: Int[np.ndarray, "searches page"]
    """The shown documents by position."""
    ranked: Int[np.ndarray, "searches logged"]
    """A random sample of the documents that were ranked and not shown."""
    filtered: Int[np.ndarray, "searches logged"]
    """A random sample of the documents that pre-ranking dropped."""


class Candidates(NamedTuple):
    """The recalled documents of some queries (-1 is padding) and their scores without noise."""

    documents: Int[np.ndarray, "queries candidates"]
    prerank: Float[np.ndarray, "queries candidates"]
    rank: Float[np.ndarray, "queries candidates"]


@dataclass(frozen=True)
class Engine:
    """A search engine that recalls documents by several retrievers, and scores them in two stages.

    Both scores are weighted sums of a BM25 score, the cosine in a latent space, and the popularity.
    """

    constants: WorldConstants
    bm25: Bm25
    semantics: LatentSpace
    retrievers: Mapping[str, Retriever]
    popularity: Float[np.ndarray, "documents"]
    """The number of clicks on each document before the present day."""
    depths: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """The number of documents that a retriever recalls, if it is not `recall_depth`."""

    def serve(self, queries: Sequence[str], *, published: int, rng: np.random.Generator) -> Pages:
        """Returns the page of each search; searches with the same query differ in their noise.

        Args:
          queries: the normalised query of each search.
          published: the number of documents in the index; they are the first ones of the catalogue.
          rng: the generator of the noise in both scores and of the sample of logged candidates.
        """
        constants = self.constants
        distinct, query_index = np.unique(np.array(queries, dtype=object).astype(str), return_inverse=True)
        candidates = self._find_candidates([str(query) for query in distinct], Stock(published, self.popularity))
        documents = candidates.documents[query_index]
        missing = documents < 0

        noise = rng.standard_normal((2, *documents.shape))
        prerank = np.where(missing, -np.inf, candidates.prerank[query_index] + constants.prerank_noise * noise[0])
        passed = _mark_best(prerank, constants.prerank_depth) & ~missing
        rank = np.where(passed, candidates.rank[query_index] + constants.rank_noise * noise[1], -np.inf)
        on_page = _mark_best(rank, constants.page_size) & passed
        order = np.argsort(np.where(on_page, -rank, np.inf), axis=1, kind="stable")[:, : constants.page_size]
        shown = np.where(np.take_along_axis(on_page, order, 1), np.take_along_axis(documents, order, 1), -1)
        logged = constants.logged_not_shown_per_stage
        return Pages(
            shown=shown,
            ranked=_sample(documents, passed & ~on_page, logged, rng),
            filtered=_sample(documents, ~passed & ~missing, logged, rng),
        )

    def after(self, clicked: Int[np.ndarray, "clicks"], *, clicks: Clicks | None = None) -> "Engine":
        """Returns the engine of the next day, whose popularity and channels know these clicks.

        Args:
          clicked: the document number of each click.
          clicks: the same clicks with their users and queries, for the channels that learn from them.
        """
        counts = np.bincount(clicked, minlength=len(self.popularity))
        retrievers = {
            name: retrieve.after(clicks)
            if isinstance(retrieve, SimilarItems | ClickedWords) and clicks is not None
            else retrieve
            for name, retrieve in self.retrievers.items()
        }
        return dataclasses.replace(self, popularity=self.popularity + counts, retrievers=retrievers)

    def depth(self, name: str) -> int:
        """Returns the number of documents that a retriever recalls."""
        return self.depths.get(name, self.constants.recall_depth)

    def first(self, queries: Sequence[str], *, published: int, k: int) -> Int[np.ndarray, "queries k"]:
        """Returns the k recalled documents with the highest ranking scores without noise; -1 is padding."""
        candidates = self._find_candidates(list(queries), Stock(published, self.popularity))
        best = top_k(np.where(candidates.documents >= 0, candidates.rank, -np.inf), k)
        return np.where(best >= 0, np.take_along_axis(candidates.documents, np.maximum(best, 0), axis=1), -1)

    def ranking_scores(self, queries: Sequence[str], *, published: int) -> Float[np.ndarray, "queries published"]:
        """Returns the scores of the ranking model for every published document, without popularity and noise."""
        lexical = self.bm25.scores(queries, published=published)
        lexical /= np.maximum(lexical.max(axis=1, keepdims=True, initial=0), 1e-6)
        semantic = self.semantics.encode(queries) @ self.semantics.documents[:published].T
        return self.constants.rank_lexical_weight * lexical + self.constants.rank_semantic_weight * semantic

    def _find_candidates(self, queries: list[str], stock: Stock) -> Candidates:
        """Finds the candidates of all queries, one batch of new queries after another."""
        known = self._known.setdefault(stock.published, {})
        new = [query for query in queries if query not in known]
        for start in range(0, len(new), _QUERIES_PER_BATCH):
            batch = new[start : start + _QUERIES_PER_BATCH]
            known.update(zip(batch, zip(*self._find_candidates_of_batch(batch, stock), strict=True), strict=True))
        return Candidates(*(np.stack(column) for column in zip(*(known[query] for query in queries), strict=True)))

    @property
    def _prerank_weights(self) -> tuple[float, float, float]:
        """The weights of the lexical score, of the cosine and of popularity in the pre-ranking score."""
        constants = self.constants
        return constants.prerank_lexical_weight, constants.prerank_semantic_weight, constants.prerank_popularity_weight

    @property
    def _rank_weights(self) -> tuple[float, float, float]:
        """The weights of the lexical score, of the cosine and of popularity in the ranking score."""
        constants = self.constants
        return constants.rank_lexical_weight, constants.rank_semantic_weight, constants.rank_popularity_weight

    @cached_property
    def _known(self) -> dict[int, dict[str, tuple[np.ndarray, ...]]]:
        """The candidates of each query so far, by the number of published documents. A day asks many queries twice."""
        return {}

    def _find_candidates_of_batch(self, queries: list[str], stock: Stock) -> Candidates:
        """Recalls the documents of some queries, and computes their scores rounded to four decimals."""
        recalled = [retrieve(queries, stock, k=self.depth(name)) for name, retrieve in self.retrievers.items()]
        documents = _mask_repeats(np.concatenate(recalled, axis=1))
        index = np.maximum(documents, 0)
        lexical = self.bm25.relative_scores(queries, index, published=stock.published)
        semantic = np.einsum("qd,qcd->qc", self.semantics.encode(queries), self.semantics.documents[index])
        features = (lexical, semantic, relative_popularity(stock.popularity)[index])
        prerank, rank = (
            sum(weight * feature for weight, feature in zip(weights, features, strict=True))
            for weights in (self._prerank_weights, self._rank_weights)
        )
        clicked_words = self.retrievers.get("clicked_words")
        if isinstance(clicked_words, ClickedWords):
            affinity = clicked_words.cosines(queries, index, published=stock.published)
            prerank, rank = (score + self.constants.affinity_weight * affinity for score in (prerank, rank))
        return Candidates(documents, np.round(prerank, 4), np.round(rank, 4))


def present_engine(world: World) -> Engine:
    """Returns the engine before a trained retriever joins it.

    It recalls documents by BM25, by a coarse latent space that prefers popular documents, and by the channels of
    data.world.channels that have a depth.
    """
    constants = world.constants
    terms = Terms(document_texts(world))
    published = int(world.published_before(constants.start_us).sum())

    def space(dimensions: int) -> LatentSpace:
        return LatentSpace(terms, dimensions=dimensions, fitted_on=published)

    bm25, semantics = Bm25(terms), space(constants.ranker_dimensions)
    present = LatentRetriever(space(constants.retriever_dimensions), popularity_bias=constants.popularity_bias)
    channels = behavioural_channels(world, semantics, published=published)
    return Engine(
        constants=constants,
        bm25=bm25,
        semantics=semantics,
        retrievers={"bm25": bm25, "present": present} | {name: channel for name, (channel, _) in channels.items()},
        depths={name: depth for name, (_, depth) in channels.items()},
        popularity=world.initial_popularity,
    )


def document_texts(world: World) -> list[str]:
    """Returns the text of every document, in the form that encoders read."""
    texts = world.documents.texts
    return [document_text(dict(zip(texts._fields, fields, strict=True))) for fields in zip(*texts, strict=True)]


def _mark_best(scores: Float[np.ndarray, "n c"], k: int) -> Bool[np.ndarray, "n c"]:
    """Returns True for the k highest scores of each row; the earlier column wins a tie."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.zeros(scores.shape, bool)
    np.put_along_axis(best, order, True, axis=1)
    return best


def _mask_repeats(documents: Int[np.ndarray, "n c"]) -> Int[np.ndarray, "n c"]:
    """Returns the documents with -1 for every repetition of a document within its row."""
    order = np.argsort(documents, axis=1, kind="stable")
    ordered = np.take_along_axis(documents, order, axis=1)
    repeated = np.zeros(documents.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return np.where(repeated, -1, documents)


def _sample(
    documents: Int[np.ndarray, "n c"], eligible: Bool[np.ndarray, "n c"], k: int, rng: np.random.Generator
) -> Int[np.ndarray, "n k"]:
    """Returns up to k eligible documents of each row, drawn at random; -1 is padding."""
    keys = np.where(eligible, rng.random(documents.shape), np.inf)
    order = np.argsort(keys, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(eligible, order, 1), np.take_along_axis(documents, order, 1), -1)
