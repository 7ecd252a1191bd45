import numpy as np
import pytest

from launch.negatives.false_negatives import false_negative_rate, wilson_interval


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (1, 1), (3, 7), (250, 1000)])
def test_the_interval_holds_the_shares_that_a_score_test_does_not_reject(successes, trials):
    low, high = wilson_interval(successes, trials)
    shares = np.linspace(1e-6, 1 - 1e-6, 200_001)
    kept = np.abs(successes / trials - shares) <= 1.959964 * np.sqrt(shares * (1 - shares) / trials)
    np.testing.assert_allclose([low, high], shares[kept][[0, -1]], atol=1e-5)


def test_a_share_without_trials_has_no_interval():
    for successes, trials in ((0, 0), (2, 1), (-1, 5)):
        with pytest.raises(ValueError, match="at least 1"):
            wilson_interval(successes, trials)


def test_the_rate_counts_pairs_and_queries():
    judged = [("a", 0.0), ("a", 1.0), ("b", 2.0), ("c", 0.5)]
    found = false_negative_rate(judged, mined=40, relevant_grade=None)
    assert (found["rate"], found["judged"], found["relevant"], found["queries"]) == (0.75, 4, 3, 3)
    assert found["low"] < 0.75 < found["high"]
    assert false_negative_rate(judged, mined=40, relevant_grade=1.0)["rate"] == 0.5


def test_it_says_why_there_is_no_rate():
    found = false_negative_rate([], mined=7, relevant_grade=None, absent="there are no judgements")
    assert (found["rate"], found["mined"], found["why"]) == (None, 7, "there are no judgements")
