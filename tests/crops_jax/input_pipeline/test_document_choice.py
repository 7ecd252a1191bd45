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
