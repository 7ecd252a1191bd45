"""The order of training pairs: all of them, once an epoch, a function of (seed, step)."""

import numpy as np
import pytest

from crops_jax.input_pipeline.pair_batches import epoch_order, pair_batches, steps_per_epoch
from crops_jax.text import tokenizer
from crops_jax.text.pair_tokens import TokenizedPairs, pair_row_widths
from tests.model_folders import write_tokenizer

PAIRS = 45


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    lengths = np.random.default_rng(0).integers(1, 40, PAIRS)
    return TokenizedPairs(
        ["red"] * PAIRS, ["shoe " * length for length in lengths], tokenizer=tokenizer.load(folder), max_tokens=32
    )


def batches(pairs, *, start=0, steps=17, seed=3):
    targets = np.arange(PAIRS) / PAIRS
    return list(pair_batches(pairs, targets, pairs_per_batch=8, seed=seed, start_step=start, num_steps=steps))


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a, b) for left, right in zip(one, other) for a, b in zip(left, right)
    )


def test_every_epoch_holds_every_pair_once_in_another_order(pairs):
    assert steps_per_epoch(PAIRS, pairs_per_batch=8) == 6
    orders = [epoch_order(pairs.lengths, pairs_per_batch=8, seed=0, epoch=epoch) for epoch in (0, 1)]
    for order in orders:
        assert order.shape == (6, 8)
        assert sorted(order[order >= 0].tolist()) == list(range(PAIRS))
    assert not np.array_equal(*orders)


def test_batches_have_few_shapes_and_padding_weighs_nothing(pairs):
    found = batches(pairs)
    assert len(found) == 17
    assert {batch.tokens.shape[1] for batch in found} <= set(pair_row_widths(32))
    for batch in found:
        assert batch.tokens.shape == batch.token_types.shape
        assert batch.tokens.shape[0] == 8
        real = (batch.tokens >= 0).any(axis=1)
        np.testing.assert_array_equal(batch.weights, real)
        assert (batch.targets[~real] == 0).all()
    assert sum(batch.weights.sum() for batch in found[:6]) == PAIRS
    assert sorted(target for batch in found[:6] for target in batch.targets[batch.weights > 0]) == pytest.approx(
        np.arange(PAIRS) / PAIRS, abs=1e-6
    )


@pytest.mark.parametrize("start", [0, 4, 6, 13, 17])
def test_a_resumed_run_gets_the_batches_that_are_left(pairs, start):
    assert same(batches(pairs, start=start), batches(pairs)[start:])


def test_the_seed_decides(pairs):
    assert same(batches(pairs), batches(pairs))
    assert not same(batches(pairs), batches(pairs, seed=4))


def test_pairs_of_a_batch_are_of_like_length(pairs):
    order = epoch_order(pairs.lengths, pairs_per_batch=8, seed=0, epoch=0)
    spread = [np.ptp(pairs.lengths[batch[batch >= 0]]) for batch in order]
    assert np.mean(spread) < np.ptp(pairs.lengths) / 3
