"""Batches of labelled pairs, in an order that is a pure function of (seed, step).

Every epoch is a permutation of all pairs, cut into stretches of some dozens of batches. Within a stretch the pairs are
sorted by length, so that a batch has little padding. The batches of an epoch are then shuffled. So the step is the
whole state. All batches have the same number of rows, and one of at most four widths.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from crops_jax.text.pair_tokens import TokenizedPairs, pair_row_width

_BATCHES_SORTED_TOGETHER = 32


class PairBatch(NamedTuple):
    """One batch of labelled pairs, one pair per row.

    tokens: the token ids, padded with -1.
    token_types: the type of each token.
    targets: the labels, in [0, 1].
    weights: 1 for a pair, 0 for a row of padding at the end of an epoch.
    """

    tokens: Int32[np.ndarray, "rows width"]
    token_types: Int32[np.ndarray, "rows width"]
    targets: Float32[np.ndarray, "rows"]
    weights: Float32[np.ndarray, "rows"]


def steps_per_epoch(pairs: int, *, pairs_per_batch: int) -> int:
    """Returns the number of batches that hold all pairs once."""
    return math.ceil(pairs / pairs_per_batch)


def pair_batches(
    pairs: TokenizedPairs,
    targets: Float64[np.ndarray, "pairs"],
    *,
    pairs_per_batch: int,
    seed: int,
    start_step: int,
    num_steps: int,
) -> Iterator[PairBatch]:
    """Yields the batches of steps start_step to num_steps - 1. A resumed run starts at its first missing step."""
    per_epoch = steps_per_epoch(len(pairs), pairs_per_batch=pairs_per_batch)
    for epoch in range(start_step // per_epoch, math.ceil(num_steps / per_epoch)):
        order = epoch_order(pairs.lengths, pairs_per_batch=pairs_per_batch, seed=seed, epoch=epoch)
        first = max(start_step - epoch * per_epoch, 0)
        for chosen in order[first : num_steps - epoch * per_epoch]:
            real = chosen >= 0
            width = pair_row_width(int(pairs.lengths[chosen[real]].max()), pairs.max_tokens)
            tokens, types = pairs.rows(chosen, width=width)
            yield PairBatch(
                tokens, types, np.where(real, targets[chosen], 0).astype(np.float32), real.astype(np.float32)
            )


def epoch_order(
    lengths: Int64[np.ndarray, "pairs"], *, pairs_per_batch: int, seed: int, epoch: int
) -> Int64[np.ndarray, "batches rows"]:
    """Returns the numbers of the pairs in each batch of an epoch; -1 is padding. Every pair is in exactly one batch."""
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(lengths))
    stretch = pairs_per_batch * _BATCHES_SORTED_TOGETHER
    parts = [order[start : start + stretch] for start in range(0, len(order), stretch)]
    order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
    batches = steps_per_epoch(len(lengths), pairs_per_batch=pairs_per_batch)
    filled = np.concatenate([order, np.full(batches * pairs_per_batch - len(order), -1)])
    return filled.reshape(batches, pairs_per_batch)[random.permutation(batches)]
