import resource
import shutil
import sys

import numpy as np
import pytest

from crops_jax.errors import InputError, NamedFailure
from crops_jax.retrieval import exact_top_k
from crops_jax.retrieval.scann_index import build_index, index_recall, load_index


def unit(count, dim, seed):
    """Clustered unit vectors, as embeddings of texts are."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((20, dim))
    values = centres[generator.integers(0, 20, count)] + 0.7 * generator.standard_normal((count, dim))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def without_scann(monkeypatch):
    monkeypatch.setitem(sys.modules, "scann", None)


def test_a_small_corpus_is_searched_by_brute_force():
    pytest.importorskip("scann", reason="ScaNN is not installed here")
    docs, queries = unit(300, 16, 0), unit(7, 16, 1)
    index = build_index(docs)
    assert index.settings["kind"] == "scann_brute_force"
    assert index_recall(exact_top_k(queries, docs, 100), index.search(queries, 100)).tolist() == [1.0] * 7


def test_a_row_that_the_corpus_cannot_fill_ends_in_minus_one():
    pytest.importorskip("scann", reason="ScaNN is not installed here")
    docs = unit(5, 8, 0)
    scores, indices = build_index(docs).search(docs[:2], 8)
    assert indices[:, 5:].tolist() == [[-1] * 3] * 2
    assert np.isneginf(scores[:, 5:]).all()
    assert sorted(indices[0, :5]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("brute_force_below", "no_tree_below", "kind"), [(0, 10**9, "scann_hash"), (0, 0, "scann_tree")]
)
def test_larger_corpora_are_searched_until_the_recall_is_reached(brute_force_below, no_tree_below, kind):
    pytest.importorskip("scann", reason="ScaNN is not installed here")
    # Queries from other clusters than the documents': the settings are raised on some and measured on the others.
    docs, queries = unit(4000, 32, 2), unit(306, 32, 3)
    sample, queries = queries[:256], queries[256:]
    index = build_index(docs, sample_queries=sample, brute_force_below=brute_force_below, no_tree_below=no_tree_below)
    assert index.settings["kind"] == kind
    assert index.settings["sample"] == "queries"
    assert index.settings["recall_on_sample"] >= 0.98
    assert index_recall(exact_top_k(queries, docs, 100), index.search(queries, 100)).mean() >= 0.97


def test_without_sample_queries_documents_are_taken_and_that_is_said():
    pytest.importorskip("scann", reason="ScaNN is not installed here")
    assert build_index(unit(1000, 16, 0), k=10, brute_force_below=0).settings["sample"] == "documents"


def test_a_saved_index_answers_the_same_from_another_place(tmp_path):
    pytest.importorskip("scann", reason="ScaNN is not installed here")
    docs, queries = unit(300, 16, 0), unit(5, 16, 1)
    index = build_index(docs)
    index.save(tmp_path / "index")
    shutil.move(tmp_path / "index", tmp_path / "moved")
    loaded = load_index(tmp_path / "moved")
    assert loaded.settings == index.settings
    np.testing.assert_array_equal(loaded.search(queries, 10)[1], index.search(queries, 10)[1])
    assert not list((tmp_path / "moved").rglob("*.pkl"))


def test_an_index_for_which_there_is_no_room_is_a_named_failure(tmp_path):
    pytest.importorskip("scann", reason="ScaNN is not installed here")
    index = build_index(unit(300, 16, 0))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(NamedFailure, match="could not write the index"):
            index.save(tmp_path / "index")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_without_scann_search_is_exact_and_says_so(without_scann, tmp_path):
    docs, queries = unit(300, 16, 0), unit(5, 16, 1)
    index = build_index(docs)
    assert index.settings["kind"] == "exact"
    assert "not installed" in index.settings["reason"]
    index.save(tmp_path / "index")
    loaded = load_index(tmp_path / "index")
    np.testing.assert_array_equal(loaded.search(queries, 9)[1], exact_top_k(queries, docs, 9)[1])


def test_a_scann_index_without_scann_is_one_clear_line(tmp_path, monkeypatch):
    pytest.importorskip("scann", reason="ScaNN is not installed here")
    build_index(unit(50, 8, 0)).save(tmp_path)
    monkeypatch.setitem(sys.modules, "scann", None)
    with pytest.raises(InputError, match="install scann"):
        load_index(tmp_path)


def test_what_is_no_index_is_refused(tmp_path):
    with pytest.raises(InputError, match="not an index"):
        load_index(tmp_path)


def test_any_of_equal_documents_counts_as_found_and_no_other():
    exact = np.float32([[0.9, 0.5]]), np.int32([[3, 1]])
    assert index_recall(exact, (np.float32([[0.9, 0.5]]), np.int32([[3, 8]]))).tolist() == [1.0]
    assert index_recall(exact, (np.float32([[0.9, 0.4]]), np.int32([[3, 8]]))).tolist() == [0.5]
    assert index_recall(exact, (np.float32([[0.9, -np.inf]]), np.int32([[3, -1]]))).tolist() == [0.5]
    assert index_recall((exact[0][:0], exact[1][:0]), (exact[0][:0], exact[1][:0])).tolist() == []
