import collections

import numpy as np
import pytest

from crops_jax.input_pipeline.document_choice import choose_documents


def test_the_choice_of_documents_is_even():
    levels = [np.array([4, 4, 1, 1, 1, 1], np.int32)] * 6000
    chosen = choose_documents(levels, positions=np.arange(6000), seed=3, columns=3)
    counts = collections.Counter(place for row in chosen for place in row)
    # One positive of two, then two of the five others: 1/2 + 1/2 * 2/5, and 2/5.
    for place in range(6):
        assert counts[place] / 6000 == pytest.approx(0.7 if place < 2 else 0.4, abs=0.03)
    assert chosen[0] != chosen[1] or chosen[1] != chosen[2]
    assert chosen == choose_documents(levels, positions=np.arange(6000), seed=3, columns=3)
    assert chosen != choose_documents(levels, positions=np.arange(6000), seed=4, columns=3)


def test_the_choice_of_one_query_does_not_depend_on_its_neighbours():
    levels = [np.array([4, 1, 1, 1], np.int32), np.array([1] * 9, np.int32), np.zeros(0, np.int32)]
    together = choose_documents(levels, positions=np.array([7, 8, 9]), seed=0, columns=2)
    alone = [
        choose_documents([one], positions=np.array([p]), seed=0, columns=2)[0] for p, one in zip((7, 8, 9), levels)
    ]
    assert together == alone
    assert together[2] == []


def test_a_limit_of_positives_leaves_the_other_columns_to_hard_negatives():
    """Records of 3 positives and 2 negatives, of 2 positives, and of 1 positive and 4 negatives, with 3 columns."""
    records = [[4, 5, 4, 1, 2], [4, 4], [4, 1, 1, 1, 3]]
    levels = [np.array(records[row % 3], np.int32) for row in range(900)]
    chosen = choose_documents(levels, positions=np.arange(900), seed=3, columns=3, positives=1)
    # The one of level 5 is first, because a query keeps a document of its highest level, and both negatives follow.
    assert all((row[0], set(row[1:])) == (1, {3, 4}) for row in chosen[0::3])
    assert {tuple(row) for row in chosen[1::3]} == {(0,), (1,)}
    assert all(row[0] == 0 and len(set(row)) == 3 for row in chosen[2::3])
    assert collections.Counter(place for row in chosen[2::3] for place in row[1:]).keys() == {1, 2, 3, 4}
    two = choose_documents(levels[:3], positions=np.arange(3), seed=3, columns=4, positives=2)
    assert [sum(records[row][place] >= 4 for place in places) for row, places in enumerate(two)] == [2, 2, 1]
