"""Candidates of a few queries, and draws from them many times over."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from crops_jax.negatives import Candidates


def candidates(score, *, positive=0.0, to_positive=None, positives=(), padding=()) -> Candidates:
    """One query. positives, padding: the places of those."""
    score = np.asarray(score, np.float32)
    is_positive, is_document = np.zeros(score.size, bool), np.ones(score.size, bool)
    is_positive[list(positives)], is_document[list(padding)] = True, False
    to_positive = np.zeros(score.size) if to_positive is None else to_positive
    return Candidates(
        jnp.asarray(score)[None],
        jnp.full(1, positive, jnp.float32),
        jnp.asarray(to_positive, jnp.float32)[None],
        jnp.asarray(is_document)[None],
        jnp.asarray(is_positive)[None],
    )


def repeated(one: Candidates, times: int) -> Candidates:
    """The same query `times` times over: each row is a draw of its own."""
    return Candidates(*(jnp.repeat(array, times, axis=0) for array in one))


@functools.partial(jax.jit, static_argnames=("sampler", "count"))
def drawn(sampler, given, key, *, count):
    return sampler(given, key, count=count)


def many_draws(sampler, one: Candidates, *, count: int, times: int = 20_000, seed: int = 0) -> np.ndarray:
    return np.asarray(drawn(sampler, repeated(one, times), jax.random.key(seed), count=count))


def assert_frequencies(places, probability) -> None:
    """Pearson's chi-square of places against their probabilities stays within 5 standard deviations of its mean.

    It has df - 1 for a mean and 2 (df - 1) for a variance. The key is fixed, so this is no matter of chance.
    """
    probability = np.asarray(probability, np.float64)
    assert probability.sum() == 1 or abs(probability.sum() - 1) < 1e-9
    counts = np.bincount(places, minlength=len(probability))
    assert (counts[probability == 0] == 0).all()
    possible = probability > 0
    expected = len(places) * probability[possible]
    assert (expected > 5).all()
    freedom = possible.sum() - 1
    chi_square = ((counts[possible] - expected) ** 2 / expected).sum()
    assert chi_square <= freedom + 5 * np.sqrt(2 * freedom)


def normalised(weights) -> np.ndarray:
    weights = np.asarray(weights, np.float64)
    return weights / weights.sum()
