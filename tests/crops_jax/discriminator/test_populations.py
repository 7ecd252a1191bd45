"""The populations of a discriminator's pairs: weights and calibration worked out by hand."""

import numpy as np
import pytest

from crops_jax.discriminator.lexical import LexicalDiscriminator
from crops_jax.discriminator.populations import FEED, POOL, RANDOM, Populations, calibration_report


def test_each_population_has_the_weight_of_its_occurrences():
    # Two pool pairs stand for 30 candidates and four feed pairs for 10: 15 and 2.5 a pair, here with the mean 1.
    index = np.array([POOL, POOL, FEED, FEED, FEED, FEED, RANDOM], np.int8)
    weights = Populations(index, (30, 10, 0)).weights()
    np.testing.assert_allclose(weights * 40 / 7, [15, 15, 2.5, 2.5, 2.5, 2.5, 0])
    assert weights.mean() == pytest.approx(1)


def test_the_pool_keeps_a_tenth_beside_a_long_feed():
    index = np.array([POOL, FEED, FEED], np.int8)
    weights = Populations(index, (1, 10_000, 0)).weights()
    assert weights[0] / weights.sum() == pytest.approx(0.1)


def test_populations_without_pairs_or_occurrences_take_no_part():
    assert Populations(np.array([POOL, POOL], np.int8), (3, 50, 0)).weights().tolist() == [1, 1]
    assert Populations(np.array([POOL, RANDOM], np.int8), (0, 0, 0)).weights().tolist() == [1, 1]
    assert Populations(np.array([FEED, RANDOM], np.int8), (0, 5, 0)).weights().tolist() == [2, 0]
    assert len(Populations(np.array([], np.int8), (1, 1, 0)).weights()) == 0


def test_the_report_by_hand():
    index = np.array([POOL, POOL, FEED, FEED, RANDOM, RANDOM, RANDOM, RANDOM, POOL], np.int8)
    after = np.array([0.9, 0.3, 0.5, 0.1, 0.65, 0.1, 0.2, 0.35, 0.99])
    targets = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0.0])
    measured = np.array([True] * 8 + [False])
    report = calibration_report(after, after, targets, Populations(index, (10, 30, 0)), measured)
    # A pool pair weighs 5 and a feed pair 15 of 40: gaps .1 and .3 in the pool, .5 and .1 in the feed; all lie in
    # bins of their own.
    assert report["ece_after"] == pytest.approx((5 * 0.1 + 5 * 0.3 + 15 * 0.5 + 15 * 0.1) / 40)
    assert report["ece_before"] == report["ece_after"]
    assert report["by_population"]["pool"] == {"pairs": 2, "mean_target": 0.5, "ece_after": pytest.approx(0.2)}
    assert report["by_population"]["random"]["pairs"] == 4
    assert report["random_pairs_passing"] == {
        "0.3": 0.5, "0.4": 0.25, "0.5": 0.25, "0.6": 0.25, "0.7": 0.0, "0.8": 0.0, "0.9": 0.0
    }  # fmt: skip
    pool_alone = calibration_report(after[:2], after[:2], targets[:2], Populations.only_pool(2), measured[:2])
    assert pool_alone["random_pairs_passing"] is None


def test_the_calibration_is_that_of_the_mixture():
    # Of three documents that have the query's word, the feed's is irrelevant: where it occurs often, theta is too sure.
    words = [f"w{i}" for i in range(60)]
    queries = [word for word in words for _ in range(3)]
    documents = [text for word in words for text in (f"{word} answer", f"{word} other", f"{word} feed")]
    targets = np.array([[1.0, float(i % 3 > 0), 0.0] for i in range(len(words))]).ravel()
    index = np.array([POOL, POOL, FEED] * len(words), np.int8)
    corpus = sorted(set(documents))
    rare, often = (
        LexicalDiscriminator.fit(
            queries, documents, targets, corpus=corpus, populations=Populations(index, (100, feed, 0))
        )
        for feed in (1, 10_000)
    )
    np.testing.assert_array_equal(rare.weights, often.weights)
    query, document = ["w1"] * 2, ["w1 answer", "w1 other"]
    assert (often.score(query, document) < rare.score(query, document) - 0.1).all()
    assert often.report["by_population"]["feed"]["mean_target"] == 0
