import gzip
import json
import math

import numpy as np
import pytest

from crops_jax.retrieval.bm25 import Bm25
from crops_jax.retrieval.metrics import ndcg_at_k
from tests.paths import SHARED_DATA

SCIFACT = SHARED_DATA / "scifact"


def test_scores_are_the_formula():
    texts = ["red car", "red red bicycle lane", "boat"]
    index = Bm25(texts, k1=1.2, b=0.75, stop_words=False, stem=False)
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    lengths = np.array([2, 4, 1])
    tf = np.array([1, 2, 0])
    wanted = idf * tf / (tf + 1.2 * (1 - 0.75 + 0.75 * lengths / lengths.mean()))
    np.testing.assert_allclose(index.scores("red"), wanted, rtol=1e-6)


def test_ties_go_by_the_given_order_and_what_shares_no_term_is_not_retrieved():
    index = Bm25(["kite", "kite", "lamp", "kite"])
    scores, indices = index.search(["kite", "zebra", ""], 3)
    assert indices.tolist() == [[0, 1, 3], [-1, -1, -1], [-1, -1, -1]]
    assert scores[1].tolist() == [0, 0, 0]
    assert index.search(["kite"], 2, order=np.array([3, 2, 1, 0]))[1].tolist() == [[3, 1]]
    assert index.search(["kite"], 9)[1].tolist() == [[0, 1, 3] + [-1] * 6]


def test_stemming_and_stop_words_are_options():
    texts = ["the running shoes", "a lamp"]
    assert Bm25(texts).search(["shoe for runs"], 1)[1].tolist() == [[0]]
    assert Bm25(texts, stem=False).search(["shoe"], 1)[1].tolist() == [[-1]]
    assert Bm25(texts).search(["the"], 1)[1].tolist() == [[-1]]
    assert Bm25(texts, stop_words=False).search(["the"], 1)[1].tolist() == [[0]]


def test_chinese_is_matched_by_character_bigrams():
    index = Bm25(["苹果手机", "香蕉"])
    assert index.terms("苹果手机") == ["苹果", "果手", "手机"]
    assert index.search(["手机"], 2)[1].tolist() == [[0, -1]]


def test_empty_texts_are_searched_in_vain():
    assert Bm25(["", "the"]).search(["the car"], 2)[1].tolist() == [[-1, -1]]


@pytest.mark.parametrize("wrong", [{"k1": -1.0}, {"b": 1.5}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match="k1 must be"):
        Bm25(["a"], **wrong)


@pytest.mark.skipif(not SCIFACT.is_dir(), reason="the shared SciFact data set is not here")
def test_scifact_is_within_half_a_point_of_the_published_figure():
    with gzip.open(SCIFACT / "corpus.jsonl.gz", "rt") as file:
        corpus = [json.loads(line) for line in file]
    queries = {row["_id"]: row["text"] for row in map(json.loads, (SCIFACT / "queries.jsonl").read_text().splitlines())}
    grades: dict[str, dict[str, int]] = {}
    for line in (SCIFACT / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        query, doc, grade = line.split("\t")
        grades.setdefault(query, {})[doc] = int(grade)
    index = Bm25([f"{doc['title']} {doc['text']}" for doc in corpus], k1=0.9, b=0.4)
    _, found = index.search([queries[query] for query in grades], 10)
    rankings = [[corpus[at]["_id"] for at in row if at >= 0] for row in found]
    values = [ndcg_at_k(ranking, grades[query], k=10) for query, ranking in zip(grades, rankings, strict=True)]
    assert len(values) == 300
    assert np.mean(values) == pytest.approx(0.6789, abs=0.005)
