"""Irrelevant pairs that are drawn beside judged and clicked ones."""

import numpy as np

from data.mining.relevance.background_pairs import draw_pairs


def test_known_pairs_are_never_drawn_and_pairs_are_distinct():
    known = {("a", "1"), ("b", "2")}
    drawn = draw_pairs(["a", "b"], ["1", "2", "3"], known, number=100, rng=np.random.default_rng(0))
    assert set(drawn) == {("a", "2"), ("a", "3"), ("b", "1"), ("b", "3")}
    assert len(drawn) == 4


def test_the_number_is_kept_and_the_seed_decides():
    ids = [str(i) for i in range(1000)]
    one, same, other = (
        draw_pairs(["a", "b"], ids, set(), number=50, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert len(one) == 50
    assert one == same != other


def test_shares_decide_how_often_a_document_is_drawn():
    queries = [str(i) for i in range(4000)]
    shares = np.array([0.75, 0.25, 0.0])
    drawn = draw_pairs(queries, ["x", "y", "z"], set(), number=4000, rng=np.random.default_rng(0), shares=shares)
    numbers = [sum(doc_id == name for _, doc_id in drawn) for name in "xyz"]
    assert numbers[2] == 0
    # Of x, queries run out sooner, so that its share is a little below .75.
    assert 0.65 < numbers[0] / len(drawn) < 0.75


def test_nothing_to_draw_from():
    rng = np.random.default_rng(0)
    assert draw_pairs([], ["1"], set(), number=3, rng=rng) == []
    assert draw_pairs(["a"], [], set(), number=3, rng=rng) == []
    assert draw_pairs(["a"], ["1"], {("a", "1")}, number=3, rng=rng) == []
