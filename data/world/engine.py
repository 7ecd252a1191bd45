"""The search engine's funnel: recall -> pre-rank -> rank -> show.

It sees texts and past clicks, never the world's truth.
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

# Fewer dimensions than there are topics: the present retriever tells fields apart, and topics only roughly.
_RETRIEVER_DIMENSIONS = 32
_RANKER_DIMENSIONS = 128
# Weights of lexical score, semantic cosine and popularity, each in about [0, 1].
_PRERANK_WEIGHTS = (0.5, 0.5, 0.2)
_RANK_WEIGHTS = (0.4, 0.8, 0.3)
_QUERIES_AT_ONCE = 256


class Pages(NamedTuple):
    """The stages that each search's candidates reached, as document numbers; -1 is padding."""

    shown: Int[np.ndarray, "searches page"]
    """The documents in the order in which they were shown."""
    ranked: Int[np.ndarray, "searches logged"]
    """A random sample of what was ranked and not shown."""
    filtered: Int[np.ndarray, "searches logged"]
    """A random sample of what pre-ranking dropped."""


class Candidates(NamedTuple):
    """Recalled documents of some queries, -1 is padding, and the two scores without noise."""

    documents: Int[np.ndarray, "queries candidates"]
    prerank: Float[np.ndarray, "queries candidates"]
    rank: Float[np.ndarray, "queries candidates"]


@dataclass(frozen=True)
class Engine:
    """Recall by every retriever; both scores weigh lexical match, a latent space's cosine and popularity."""

    constants: WorldConstants
    bm25: Bm25
    semantics: LatentSpace
    retrievers: Mapping[str, Retriever]
    popularity: Float[np.ndarray, "documents"]
    """Clicks that each document has got so far."""

    def serve(self, queries: Sequence[str], *, published: int, rng: np.random.Generator) -> Pages:
        """One page for each search; the same query gets other noise in every search.

        Args:
          queries: normalised texts, one a search.
          published: the first so many documents are in the index.
          rng: for the noise in both scores and for which candidates are logged.
        """
        constants = self.constants
        distinct, which = np.unique(np.array(queries, dtype=object).astype(str), return_inverse=True)
        found = self._candidates([str(query) for query in distinct], Stock(published, self.popularity))
        documents = found.documents[which]
        missing = documents < 0

        noise = rng.standard_normal((2, *documents.shape))
        prerank = np.where(missing, -np.inf, found.prerank[which] + constants.prerank_noise * noise[0])
        passed = _among_best(prerank, constants.prerank_depth) & ~missing
        rank = np.where(passed, found.rank[which] + constants.rank_noise * noise[1], -np.inf)
        on_page = _among_best(rank, constants.page_size) & passed
        order = np.argsort(np.where(on_page, -rank, np.inf), axis=1, kind="stable")[:, : constants.page_size]
        shown = np.where(np.take_along_axis(on_page, order, 1), np.take_along_axis(documents, order, 1), -1)
        logged = constants.logged_not_shown_per_stage
        return Pages(
            shown=shown,
            ranked=_sample(documents, passed & ~on_page, logged, rng),
            filtered=_sample(documents, ~passed & ~missing, logged, rng),
        )

    def after(self, clicked: Int[np.ndarray, "clicks"]) -> "Engine":
        """The engine of the next day, which knows of these clicks (document numbers, one a click)."""
        clicks = np.bincount(clicked, minlength=len(self.popularity))
        return dataclasses.replace(self, popularity=self.popularity + clicks)

    def ranking_scores(self, queries: Sequence[str], *, published: int) -> Float[np.ndarray, "queries published"]:
        """The ranking model's scores of every published document, without popularity and noise."""
        lexical = self.bm25.scores(queries, published=published)
        lexical /= np.maximum(lexical.max(axis=1, keepdims=True, initial=0), 1e-6)
        semantic = self.semantics.encode(queries) @ self.semantics.documents[:published].T
        return _RANK_WEIGHTS[0] * lexical + _RANK_WEIGHTS[1] * semantic

    def _candidates(self, queries: list[str], stock: Stock) -> Candidates:
        parts = [
            self._candidates_of_some(queries[start : start + _QUERIES_AT_ONCE], stock)
            for start in range(0, len(queries), _QUERIES_AT_ONCE)
        ]
        return Candidates(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _candidates_of_some(self, queries: list[str], stock: Stock) -> Candidates:
        recalled = [retrieve(queries, stock, k=self.constants.recall_depth) for retrieve in self.retrievers.values()]
        documents = _without_repeats(np.concatenate(recalled, axis=1))
        at = np.maximum(documents, 0)
        lexical = self.bm25.scores(queries, published=stock.published)
        lexical = np.take_along_axis(lexical / np.maximum(lexical.max(axis=1, keepdims=True), 1e-6), at, axis=1)
        semantic = np.einsum("qd,qcd->qc", self.semantics.encode(queries), self.semantics.documents[at])
        features = (lexical, semantic, relative_popularity(stock.popularity)[at])
        prerank, rank = (
            sum(weight * feature for weight, feature in zip(weights, features, strict=True))
            for weights in (_PRERANK_WEIGHTS, _RANK_WEIGHTS)
        )
        return Candidates(documents, np.round(prerank, 4), np.round(rank, 4))


def present_engine(world: World) -> Engine:
    """The engine before any retriever of ours: recall by BM25 and by a coarse, popularity-biased latent space."""
    constants = world.constants
    terms = Terms(document_texts(world))
    known = int(world.published_before(constants.start_us).sum())

    def space(dimensions: int) -> LatentSpace:
        return LatentSpace(terms, dimensions=dimensions, fitted_on=known)

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
    """The encoder's text of every document."""
    texts = world.documents.texts
    return [document_text(dict(zip(texts._fields, fields, strict=True))) for fields in zip(*texts, strict=True)]


def _among_best(scores: Float[np.ndarray, "n c"], k: int) -> Bool[np.ndarray, "n c"]:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.zeros(scores.shape, bool)
    np.put_along_axis(best, order, True, axis=1)
    return best


def _without_repeats(documents: Int[np.ndarray, "n c"]) -> Int[np.ndarray, "n c"]:
    """Later copies of a document in a row become -1."""
    order = np.argsort(documents, axis=1, kind="stable")
    ordered = np.take_along_axis(documents, order, axis=1)
    repeated = np.zeros(documents.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return np.where(repeated, -1, documents)


def _sample(
    documents: Int[np.ndarray, "n c"], eligible: Bool[np.ndarray, "n c"], k: int, rng: np.random.Generator
) -> Int[np.ndarray, "n k"]:
    """Up to k of the eligible documents of each row, at random, -1 where there are fewer."""
    keys = np.where(eligible, rng.random(documents.shape), np.inf)
    order = np.argsort(keys, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(eligible, order, 1), np.take_along_axis(documents, order, 1), -1)
