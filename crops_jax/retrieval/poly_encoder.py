"""Search and reranking by a Poly-encoder. No index serves its score, so each pair of a query and a document is scored.

The score is that of crops_jax.models.poly_encoder.poly_scores. It takes as many products of vectors as a query has
codes, and they are computed on one device, in tiles whose size does not depend on the numbers of queries and documents
beyond the first tile. Scores can differ in their last digits between a search and a reranking.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int, Int32

from crops_jax.models.poly_encoder import poly_scores, poly_scores_of_own
from crops_jax.retrieval.exact import check_k

# The cosines of codes and documents that are in memory at once: 16 MiB.
_COSINES = 1 << 22
_TILE_DOCS = 4096


def poly_top_k(
    contexts: Float32[np.ndarray, "queries codes dim"],
    docs: Float32[np.ndarray, "docs dim"],
    k: int,
    *,
    temperature: float,
    order: Int[np.ndarray, "docs"] | None = None,
    progress: Callable[[int], Any] = lambda pairs: None,
) -> tuple[Float32[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]]:
    """Returns the k documents with the greatest scores of each query, best first. Every document is scored.

    Args:
      contexts: the context vectors of the queries.
      docs: the unit vectors of the documents.
      k: the number of documents for each query, from 1 to the number of documents.
      temperature: the learnt temperature of the Poly-encoder.
      order: a distinct integer for each document; of documents with equal scores the lower integer is first. By default
        it is the document's index.
      progress: a function that is called with the number of pairs that were scored since its last call.

    Returns:
      scores float32 [queries, k] and indices int32 [queries, k] into docs.

    Raises:
      ValueError: k is out of range, or a vector is not finite.
    """
    count = len(docs)
    check_k(k, count)
    _check_finite(contexts, docs)
    # In this order, the lower of two columns with equal scores is the one to take.
    by_order = np.arange(count) if order is None else np.argsort(order)
    placed, tile = jnp.asarray(docs[by_order]), min(count, _TILE_DOCS)
    scores, indices = np.zeros((len(contexts), k), np.float32), np.zeros((len(contexts), k), np.int32)
    size = _queries_at_once(contexts, tile)
    for first in range(0, len(contexts), size):
        chunk = jnp.asarray(_filled(contexts[first : first + size], size))
        parts = []
        for start in range(0, count, tile):
            moved = min(start, count - tile)
            found, columns = _first_of_tile(
                chunk, placed, moved, start - moved, temperature, tile=tile, width=min(k, tile)
            )
            parts.append((np.asarray(found), moved + np.asarray(columns)))
            progress(len(contexts[first : first + size]) * (min(start + tile, count) - start))
        found, columns = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        best = np.lexsort((columns, -found))[:, :k]
        rows = slice(first, min(first + size, len(contexts)))
        scores[rows] = np.take_along_axis(found, best, 1)[: rows.stop - first]
        indices[rows] = by_order[np.take_along_axis(columns, best, 1)][: rows.stop - first]
    return scores, indices


def poly_scores_at(
    contexts: Float32[np.ndarray, "queries codes dim"],
    docs: Float32[np.ndarray, "docs dim"],
    indices: Int32[np.ndarray, "queries depth"],
    *,
    temperature: float,
    progress: Callable[[int], Any] = lambda pairs: None,
) -> Float32[np.ndarray, "queries depth"]:
    """Returns the scores of each query with the documents in its row of indices; 0 where the index is -1.

    The other arguments are those of `poly_top_k`. Raises ValueError if a vector is not finite.
    """
    _check_finite(contexts, docs)
    scores = np.zeros(indices.shape, np.float32)
    size, placed = _queries_at_once(contexts, max(indices.shape[1], 1)), jnp.asarray(docs)
    for first in range(0, len(contexts), size):
        rows = slice(first, first + size)
        chosen = _filled(indices[rows], size)
        found = _scores_at(jnp.asarray(_filled(contexts[rows], size)), placed, jnp.asarray(chosen), temperature)
        scores[rows] = np.where(indices[rows] >= 0, np.asarray(found)[: len(indices[rows])], 0)
        progress(int((indices[rows] >= 0).sum()))
    return scores


def _check_finite(contexts: np.ndarray, docs: np.ndarray) -> None:
    for name, array in (("contexts", contexts), ("docs", docs)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds a vector that is not finite; train again")


def _queries_at_once(contexts: np.ndarray, documents: int) -> int:
    """Returns the number of queries of one program, of which the last chunk may have fewer."""
    return max(1, min(len(contexts), _COSINES // (contexts.shape[1] * documents)))


def _filled(rows: np.ndarray, size: int) -> np.ndarray:
    """Returns the rows, with the first one repeated after them up to `size` rows."""
    return np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])


@functools.partial(jax.jit, static_argnames=("tile", "width"))
def _first_of_tile(
    contexts: jax.Array, docs: jax.Array, start: Any, scored: Any, temperature: Any, *, tile: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the best scores and their columns in docs[start : start + tile], without its first `scored` documents."""
    scores = poly_scores(contexts, jax.lax.dynamic_slice_in_dim(docs, start, tile), temperature)
    return jax.lax.top_k(jnp.where(jnp.arange(tile)[None, :] >= scored, scores, -jnp.inf), width)


@jax.jit
def _scores_at(contexts: jax.Array, docs: jax.Array, indices: jax.Array, temperature: Any) -> jax.Array:
    return poly_scores_of_own(contexts, docs[jnp.maximum(indices, 0)], temperature)
