"""Draws for many rankings, each with a random key of its own, so that a draw does not depend on its neighbours."""

import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, UInt64

from crops_jax.hashing import seed_hash, splitmix64
from crops_jax.negatives.candidates import Candidates, Sampler

# The number of rankings that are drawn from together. Shorter blocks are padded, so that few programs are compiled.
_ROWS_AT_ONCE = 1024


def draw_rows(
    sampler: Sampler,
    *,
    scores: Float[np.ndarray, "queries k"],
    positive_scores: Float[np.ndarray, "queries"],
    to_positive: Float[np.ndarray, "queries k"],
    free: Bool[np.ndarray, "queries k"],
    temperature: float,
    seed: int,
    hashes: UInt64[np.ndarray, "queries"],
    count: int,
) -> Int32[np.ndarray, "queries count"]:
    """Returns the positions that a sampler draws from each ranking; -1 for the last ones of a ranking with fewer.

    Args:
      sampler: the distribution.
      scores: the cosines of the query and each document; anything where `free` is False.
      positive_scores: the cosine of the query and its positive.
      to_positive: the cosines of the positive and each document; 0 for samplers that do not read them.
      free: a mask of the documents that can be drawn.
      temperature: the number by which cosines are divided, as in the loss.
      seed, hashes: the seed and one number for each ranking, which decide the draws.
      count: the number of draws.
    """
    bits = splitmix64(hashes ^ seed_hash(seed))
    keys = np.stack([bits >> np.uint64(32), bits & np.uint64(0xFFFFFFFF)], axis=1).astype(np.uint32)
    found = np.empty((len(scores), count), np.int32)
    for start in range(0, len(scores), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        candidates = Candidates(
            score=_padded(np.where(free[some], scores[some], 0.0) / temperature, np.float32),
            positive_score=_padded(positive_scores[some] / temperature, np.float32),
            to_positive=_padded(to_positive[some] / temperature, np.float32),
            is_document=_padded(free[some], bool),
            is_positive=_padded(np.zeros(free[some].shape, bool), bool),
        )
        drawn = _drawn(candidates, _padded(keys[some], np.uint32), sampler=sampler, count=count)
        found[some] = np.asarray(drawn)[: len(free[some])]
    return found


def _padded(rows: np.ndarray, kind: type) -> Any:
    padding = ((0, _ROWS_AT_ONCE - len(rows)), *((0, 0) for _ in rows.shape[1:]))
    return np.pad(rows, padding).astype(kind)


@functools.partial(jax.jit, static_argnames=("sampler", "count"))
def _drawn(candidates: Candidates, keys: Array, *, sampler: Sampler, count: int) -> Array:
    def one(candidates: Candidates, key: Array) -> Array:
        row = jax.tree.map(lambda array: array[None], candidates)
        return sampler(row, jax.random.wrap_key_data(key, impl="threefry2x32"), count=count)[0]

    return jax.vmap(one)(candidates, keys)
