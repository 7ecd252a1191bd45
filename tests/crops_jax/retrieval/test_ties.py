"""The range of a figure over the orders of equal scores, against all orders."""

import itertools
import random

import numpy as np
import pytest

from crops_jax.retrieval import evaluation
from crops_jax.retrieval.evaluation import metric_value
from crops_jax.retrieval.ties import tied_figures

DOCUMENTS = [f"d{i}" for i in range(7)]


def reference(scores, grades, metric):
    """The least and the greatest value over every order of all documents that has descending scores."""
    values = [
        metric_value(metric, order, grades)
        for order in itertools.permutations(DOCUMENTS)
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    return min(values), max(values)


def answer(scores, depth):
    order = sorted(DOCUMENTS, key=lambda document: (-scores[document], document))[:depth]
    return (
        np.array([scores[document] for document in order], np.float32),
        np.array([DOCUMENTS.index(document) for document in order]),
    )


@pytest.mark.parametrize("metric", ["recall@3", "ndcg@3"])
@pytest.mark.parametrize("seed", range(6))
def test_the_range_is_that_of_all_orders(metric, seed):
    chance = random.Random(seed)
    scores = {document: float(chance.randrange(3)) for document in DOCUMENTS}
    grades = {document: float(chance.randrange(3)) for document in chance.sample(DOCUMENTS, 4)} | {"d0": 1.0}
    test = evaluation.TestSet(name="ct", metrics=(metric,), grades={"q": grades})
    found = tied_figures([test], {"q": answer(scores, len(DOCUMENTS))}, DOCUMENTS).get("ct", {}).get(metric)
    worst, best = reference(scores, grades, metric)
    ordered = sorted(scores.values(), reverse=True)
    if found is None:
        assert worst == best
        assert ordered[2] != ordered[3]
    else:
        assert found == (int(ordered[2] == ordered[3]), pytest.approx(worst), pytest.approx(best))
    # A list that ends within equal scores may hide documents of the same score.
    cut = tied_figures([test], {"q": answer(scores, 4)}, DOCUMENTS).get("ct", {}).get(metric)
    if cut is not None:
        assert cut.worst <= worst + 1e-9
        assert cut.best >= best - 1e-9


def test_equal_vectors_have_no_figure_of_their_own():
    grades = {"q": {"d0": 1.0, "d1": 1.0}}
    test = evaluation.TestSet(name="judgements", metrics=("ndcg@2",), grades=grades)
    scores = dict.fromkeys(DOCUMENTS, 1.0)
    for depth in (4, 7):
        (figure,) = tied_figures([test], {"q": answer(scores, depth)}, DOCUMENTS)["judgements"].values()
        assert figure == (1, 0.0, 1.0)


def test_distinct_scores_say_nothing():
    test = evaluation.TestSet(name="ct", metrics=("recall@3", "ndcg@3"), grades={"q": {"d3": 1.0}})
    scores = {document: float(place) for place, document in enumerate(DOCUMENTS)}
    assert tied_figures([test], {"q": answer(scores, 7)}, DOCUMENTS) == {}
