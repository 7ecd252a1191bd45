"""The stages of the search engine: recall -> pre-rank -> rank -> show.

The engine uses texts and past clicks, and never the truth of the world.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from crops_jax.text import document_text
from data.world.constants import WorldConstants
from data.world.retrievers import Bm25, LatentRetriever, LatentSpace, Retriever, Stock, Terms, relative_popularity
from data.world.world import World

# The present retriever has fewer dimensions than the world has topics, so that it separates fields well and topics
# only roughly.
_RETRIEVER_DIMENSIONS = 32
_RANKER_DIMENSIONS = 128
# The weights of the lexical score, the semantic cosine and the popularity, each of which is in about [0, 1].
_PRERANK_WEIGHTS = (0.5, 0.5, 0.2)
_RANK_WEIGHTS = (0.4, 0.8, 0.3)
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

    def after(self, clicked: Int[np.ndarray, "clicks"]) -> "Engine":
        """Returns the engine of the next day, whose popularity includes these clicks.

        Args:
          clicked: the document number of each click.
        """
        clicks = np.bincount(clicked, minlength=len(self.popularity))
        return dataclasses.replace(self, popularity=self.popularity + clicks)

    def ranking_scores(self, queries: Sequence[str], *, published: int) -> Float[np.ndarray, "queries published"]:
        """Returns the scores of the ranking model for every published document, without popularity and noise."""
        lexical = self.bm25.scores(queries, published=published)
        lexical /= np.maximum(lexical.max(axis=1, keepdims=True, initial=0), 1e-6)
        semantic = self.semantics.encode(queries) @ self.semantics.documents[:published].T
        return _RANK_WEIGHTS[0] * lexical + _RANK_WEIGHTS[1] * semantic

    def _find_candidates(self, queries: list[str], stock: Stock) -> Candidates:
        """Finds the candidates of all queries, one batch of queries after another."""
        parts = [
            self._find_candidates_of_batch(queries[start : start + _QUERIES_PER_BATCH], stock)
            for start in range(0, len(queries), _QUERIES_PER_BATCH)
        ]
        return Candidates(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _find_candidates_of_batch(self, queries: list[str], stock: Stock) -> Candidates:
        """Recalls the documents of some queries, and computes their scores rounded to four decimals."""
        recalled = [retrieve(queries, stock, k=self.constants.recall_depth) for retrieve in self.retrievers.values()]
        documents = _mask_repeats(np.concatenate(recalled, axis=1))
        index = np.maximum(documents, 0)
        lexical = self.bm25.scores(queries, published=stock.published)
        lexical = np.take_along_axis(lexical / np.maximum(lexical.max(axis=1, keepdims=True), 1e-6), index, axis=1)
        semantic = np.einsum("qd,qcd->qc", self.semantics.encode(queries), self.semantics.documents[index])
        features = (lexical, semantic, relative_popularity(stock.popularity)[index])
        prerank, rank = (
            sum(weight * feature for weight, feature in zip(weights, features, strict=True))
            for weights in (_PRERANK_WEIGHTS, _RANK_WEIGHTS)
        )
        return Candidates(documents, np.round(prerank, 4), np.round(rank, 4))


def present_engine(world: World) -> Engine:
    """Returns the engine before a trained retriever joins it.

    It recalls documents by BM25, and by a coarse latent space that prefers popular documents.
    """
    constants = world.constants
    terms = Terms(document_texts(world))
    published = int(world.published_before(constants.start_us).sum())

    def space(dimensions: int) -> LatentSpace:
        return LatentSpace(terms, dimensions=dimensions, fitted_on=published)

    bm25 = Bm25(terms)
    present = LatentRetriever(space(_RETRIEVER_DIMENSIONS), popularity_bias=constants.popularity_bias)
    return Engine(
        constants=constants,
        bm25=bm25,
        semantics=space(_RANKER_DIMENSIONS),
        retrievers={"bm25": bm25, "present": present},
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
