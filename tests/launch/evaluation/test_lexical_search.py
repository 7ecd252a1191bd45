"""BM25's results in a file: searched once for the same queries, documents and parameters, and again for others."""

import dataclasses

import numpy as np
import pytest

from crops_jax.errors import InputError
from launch.corpus.documents import Corpus
from launch.evaluation import lexical_search as module
from launch.evaluation.lexical_search import search_bm25, stored_bm25

TITLES = ["red shoe", "blue lamp", "red lamp"]
CORPUS = Corpus(doc_ids=["a", "b", "c"], titles=TITLES, texts=TITLES)


@pytest.fixture
def searched(monkeypatch):
    """The calls of the search."""
    calls = []

    def record(queries, corpus, **parameters):
        calls.append((list(queries), parameters))
        return search_bm25(queries, corpus, **parameters)

    monkeypatch.setattr(module, "search_bm25", record)
    return calls


def test_the_results_are_those_of_the_search_and_are_searched_once(tmp_path, searched):
    file = tmp_path / "made" / "bm25.npz"
    expected = search_bm25(["red", "lamp"], CORPUS, k1=1.2, b=0.75)
    for _ in range(2):
        found = stored_bm25(file, ["red", "lamp"], CORPUS, k1=1.2, b=0.75)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.scores, expected.scores)
    assert len(searched) == 1


def test_other_queries_documents_and_parameters_are_searched_again(tmp_path, searched):
    file = tmp_path / "bm25.npz"
    stored_bm25(file, ["red"], CORPUS, k1=1.2, b=0.75)
    stored_bm25(file, ["blue"], CORPUS, k1=1.2, b=0.75)
    stored_bm25(file, ["blue"], CORPUS, k1=0.9, b=0.75)
    other = dataclasses.replace(CORPUS, texts=["red shoe", "blue lamp", "blue kite"])
    found = stored_bm25(file, ["blue"], other, k1=0.9, b=0.75)
    assert len(searched) == 4
    assert set(found.indices[0, :2].tolist()) == {1, 2}


def test_a_file_of_something_else_is_refused_and_kept(tmp_path, searched):
    file = tmp_path / "thesis.npz"
    file.write_text("years")
    with pytest.raises(InputError, match=r"thesis\.npz.*remove the file"):
        stored_bm25(file, ["red"], CORPUS, k1=1.2, b=0.75)
    assert file.read_text() == "years"
    np.savez(file, other=np.zeros(1))
    with pytest.raises(InputError, match="not results of BM25"):
        stored_bm25(file, ["red"], CORPUS, k1=1.2, b=0.75)
