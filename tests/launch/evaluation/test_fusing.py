import numpy as np

from crops_jax.retrieval.fusion import reciprocal_rank_fusion, weighted_fusion
from launch.corpus.documents import Corpus
from launch.evaluation.dev_queries import DevQueries
from launch.evaluation.fusing import fuse
from launch.evaluation.searching import Retrieved

CORPUS = Corpus(doc_ids=["c", "b", "a", "d"], titles=["t"] * 4, texts=["t"] * 4)
# Two test queries, then two dev queries; the encoder is right on the dev queries, BM25 is not.
ENCODER = Retrieved(
    np.array([[0.9, 0.5, 0.1]] * 4, np.float32), np.array([[0, 1, 2], [3, 1, 0], [1, 0, 2], [2, 3, 0]], np.int32)
)
BM25 = Retrieved(
    np.array([[9.0, 6.0, 5.0]] * 4, np.float32), np.array([[2, 1, 0], [0, 1, 3], [0, 2, 3], [0, 1, 3]], np.int32)
)


def dev(first, second):
    return DevQueries(
        source="judgements of split dev", grades={"e": {first: 1.0}, "f": {second: 1.0}}, metric="ndcg@10"
    )


def test_the_weight_is_that_of_the_best_curve_on_the_dev_queries():
    fused, described = fuse(ENCODER, BM25, dev("b", "a"), CORPUS)
    chosen = described["fusion"]["weighted"]
    curve = {point["encoder_weight"]: point["value"] for point in chosen["curve"]}
    # The documents b and a are first in the encoder's lists and missing in, or last of, those of BM25.
    assert [curve[weight] for weight in (0.0, 1.0)] == [min(curve.values()), 1.0]
    assert curve[chosen["encoder_weight"]] == 1.0
    assert chosen["encoder_weight"] == min(weight for weight, value in curve.items() if value == 1.0 and weight >= 0.5)
    assert (chosen["queries"], chosen["metric"]) == (2, "ndcg@10")
    weight = chosen["encoder_weight"]
    lists = [ENCODER.first(2), BM25.first(2)]
    wanted = weighted_fusion(lists, (weight, 1 - weight), 3, order=CORPUS.order)
    np.testing.assert_array_equal(fused["fusion_weighted"].indices, wanted[1])
    np.testing.assert_array_equal(fused["fusion_weighted"].scores, wanted[0])
    wanted = reciprocal_rank_fusion(lists, 3, order=CORPUS.order)
    np.testing.assert_array_equal(fused["fusion_rrf"].indices, wanted[1])
    # The documents of equal ranks, c and a, are in the order of their ids.
    assert [CORPUS.doc_ids[index] for index in fused["fusion_rrf"].indices[0]] == ["a", "c", "b"]


def test_other_dev_queries_choose_another_weight():
    _, described = fuse(ENCODER, BM25, dev("c", "c"), CORPUS)
    assert described["fusion"]["weighted"]["encoder_weight"] < 0.5


def test_without_dev_queries_there_is_no_weighted_sum_and_the_reason_is_given():
    fused, described = fuse(ENCODER, BM25, DevQueries(absent="nobody judged"), CORPUS)
    assert list(fused) == ["fusion_rrf"]
    assert len(fused["fusion_rrf"].indices) == 4
    assert described["fusion"]["weighted"] == {"absent": "nobody judged"}
    assert described["fusion"]["rrf"] == {"constant": 60}
