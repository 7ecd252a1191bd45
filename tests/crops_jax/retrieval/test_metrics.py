import math

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crops_jax.retrieval.metrics import average_precision, is_relevant, judged_at_k, mrr_at_k, ndcg_at_k, recall_at_k

DOCS = [f"d{i}" for i in range(30)]
rankings = st.lists(st.sampled_from(DOCS), unique=True, max_size=25)
judgements = st.dictionaries(st.sampled_from([*DOCS, "missing"]), st.integers(0, 4), min_size=1, max_size=20)


@settings(max_examples=200, deadline=None)
@given(
    runs=st.lists(st.tuples(rankings, judgements), min_size=1, max_size=4),
    k=st.integers(1, 30),
    least=st.integers(1, 3),
)
def test_equal_to_ir_measures_on_the_same_run_and_judgements(runs, k, least):
    measures = {
        ir_measures.R(rel=least) @ k: lambda r, g: recall_at_k(r, g, k=k, relevant_grade=least),
        ir_measures.NDCG @ k: lambda r, g: ndcg_at_k(r, g, k=k),
        ir_measures.RR(rel=least) @ k: lambda r, g: mrr_at_k(r, g, k=k, relevant_grade=least),
        ir_measures.AP(rel=least) @ k: lambda r, g: average_precision(r, g, k=k, relevant_grade=least),
        ir_measures.Judged @ k: lambda r, g: judged_at_k(r, g, k=k),
        ir_measures.AP(rel=least): lambda r, g: average_precision(r, g, relevant_grade=least),
    }
    qrels = [ir_measures.Qrel(f"q{i}", d, g) for i, (_, grades) in enumerate(runs) for d, g in grades.items()]
    run = [
        ir_measures.ScoredDoc(f"q{i}", d, 1.0 - rank / 100) for i, (r, _) in enumerate(runs) for rank, d in enumerate(r)
    ]
    found = {
        (metric.measure, metric.query_id): metric.value for metric in ir_measures.iter_calc(list(measures), qrels, run)
    }
    for measure, ours in measures.items():
        for i, (ranking, grades) in enumerate(runs):
            # ir_measures leaves a query that retrieved nothing out; its value is 0.
            assert ours(ranking, grades) == pytest.approx(found.get((measure, f"q{i}"), 0.0), abs=1e-9), measure


def test_by_hand():
    grades = {"a": 2, "b": 1, "missed": 1}
    ranking = ["x", "a", "y", "b"]
    assert recall_at_k(ranking, grades, k=2) == pytest.approx(1 / 3)
    assert mrr_at_k(ranking, grades, k=4) == 1 / 2
    assert mrr_at_k(ranking, grades, k=1) == 0
    assert average_precision(ranking, grades) == pytest.approx((1 / 2 + 2 / 4) / 3)
    ideal = 2 + 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg_at_k(ranking, grades, k=4) == pytest.approx((2 / math.log2(3) + 1 / math.log2(5)) / ideal)


def test_grades_may_be_fractions_and_relevance_may_begin_at_one_of_them():
    assert recall_at_k(["a"], {"a": 0.33, "b": 1.67}, k=1) == 0.5
    assert recall_at_k(["a"], {"a": 0.33, "b": 1.67}, k=1, relevant_grade=1) == 0
    assert is_relevant(0.33)
    assert not is_relevant(0.33, 1)


def test_a_query_without_a_relevant_document_has_zero():
    for metric in (recall_at_k, ndcg_at_k, mrr_at_k):
        assert metric(["a"], {"a": 0}, k=3) == 0
    assert average_precision([], {}) == 0


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="k must"):
        recall_at_k(["a"], {"a": 1}, k=0)
    with pytest.raises(ValueError, match="twice"):
        ndcg_at_k(["a", "a"], {"a": 1}, k=2)
