import dataclasses
import io
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from crops_jax import program
from crops_jax.errors import InputError
from data.tables import write_table
from launch import search as module
from launch.search import SearchArguments, search
from tests.embedding_folders import write_embeddings

TITLES = ["red car", "blue boat", "red boat\x1b[31m", "grey " + "very " * 60 + "kite"]


class LetterEncoder:
    """Counts letters."""

    dim = 26
    fingerprint = "letters"

    def encode(self, texts, *, tower, dim=None, batch_tokens=None, progress=False):
        letters = range(dim or self.dim)
        counts = np.array([[text.lower().count(chr(97 + i)) for i in letters] for text in texts], np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
    monkeypatch.setattr(module, "open_encoder", lambda _: LetterEncoder())
    monkeypatch.setattr("sys.stdin", io.StringIO(""))


@pytest.fixture
def logs(tmp_path):
    rows = [{"doc_id": f"d{row}", "title": title} for row, title in enumerate(TITLES)]
    write_table(tmp_path, "documents", pa.Table.from_pylist(rows))
    judged = [{"query": "red car", "doc_id": "d0", "grade": 1.0}]
    write_table(tmp_path, "judgements", pa.Table.from_pylist(judged))
    return str(tmp_path)


def test_the_best_documents_are_printed_with_titles_and_scores(logs, capsys):
    outcome = search(SearchArguments(query=("Red", "  CAR"), run="run", logs=logs, k=2))
    (answered,) = outcome["queries"]
    assert answered["query"] == "red car"
    assert answered["results"][0] == {"rank": 1, "doc_id": "d0", "title": "red car", "score": 1.0}
    assert len(answered["results"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "1.0000  red car  [d0]" in captured.err


def test_further_queries_come_from_standard_input(logs, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("blue boat\n\nred boat\n"))
    outcome = search(SearchArguments(query=("red car",), run="run", logs=logs))
    assert [answered["query"] for answered in outcome["queries"]] == ["red car", "blue boat", "red boat"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("query", "expected"), [(("red car",), ["red car"]), ((), ["blue boat", "red boat"])])
def test_a_terminal_is_read_only_without_a_query(logs, monkeypatch, capsys, query, expected):
    monkeypatch.setattr("sys.stdin", Terminal("blue boat\nred boat\n"))
    outcome = search(SearchArguments(query=query, run="run", logs=logs))
    assert [answered["query"] for answered in outcome["queries"]] == expected
    assert ("type a query a line" in capsys.readouterr().err) == (not query)


def test_stored_vectors_of_any_type_are_searched(logs, tmp_path, monkeypatch):
    asked = SearchArguments(query=("red car",), run="run", logs=logs, dim=20)
    computed = search(asked)
    assert (computed["dim"], computed["document_vectors"]) == (20, "float32")
    vectors = LetterEncoder().encode(TITLES, tower="document", dim=20)
    write_embeddings(
        tmp_path / "embedded",
        [f"d{row}" for row in range(len(TITLES))],
        vectors,
        tower="document",
        shard_rows=3,
        encoder="letters",
        inputs={"texts": tmp_path / "documents.parquet"},
        dtype="int8",
    )
    stored = dataclasses.replace(asked, document_embeddings=str(tmp_path / "embedded"), dim=None)
    found = search(stored)
    assert (found["dim"], found["document_vectors"]) == (20, "int8")
    scores = [[result["score"] for result in each["queries"][0]["results"]] for each in (computed, found)]
    np.testing.assert_allclose(scores[1], scores[0], atol=0.01)
    monkeypatch.setattr("crops_jax.retrieval.mapped.BLOCK_BYTES", 1)
    assert search(stored)["queries"] == found["queries"]
    with pytest.raises(InputError, match=r"vectors of 20 components, and --dim is 26"):
        search(dataclasses.replace(stored, dim=26))


def test_an_empty_query_is_answered_with_a_message(logs, capsys):
    assert search(SearchArguments(query=(" ",), run="run", logs=logs))["queries"] == []
    assert "empty query" in capsys.readouterr().err


def test_what_is_no_text_is_passed_over(logs, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("\udcff\udcfe\n\x1b[31mred boat\n"))
    outcome = search(SearchArguments(run="run", logs=logs))
    assert len(outcome["queries"]) == 1
    printed = capsys.readouterr().err
    assert "not UTF-8" in printed
    assert "\x1b" not in printed


def test_k_beyond_the_corpus_gives_all_of_it(logs):
    assert len(search(SearchArguments(query=("a",), run="run", logs=logs, k=50))["queries"][0]["results"]) == len(
        TITLES
    )


def test_titles_are_one_line_that_a_terminal_does_not_obey(logs, capsys):
    search(SearchArguments(query=("boat kite",), run="run", logs=logs))
    printed = capsys.readouterr().err
    assert "\x1b" not in printed
    assert "…" in printed


def test_fusion_adds_the_reciprocal_ranks_of_the_encoder_and_of_bm25(logs):
    asked = SearchArguments(query=("red boat",), run="run", logs=logs, k=3)
    ranked = [result["doc_id"] for result in search(asked)["queries"][0]["results"]]
    assert ranked[0] == "d2"
    results = search(dataclasses.replace(asked, fusion="rrf"))["queries"][0]["results"]
    # BM25 finds d2, which has both words, and d0 and d1 with one each; "31m" of d2 makes it longer.
    places = {"d2": 1, "d0": 2, "d1": 3}
    wanted = {doc: round(1 / (60 + place) + 1 / (61 + ranked.index(doc)), 4) for doc, place in places.items()}
    assert {result["doc_id"]: result["score"] for result in results} == wanted
    assert [result["rank"] for result in results] == [1, 2, 3]
    assert results[0]["doc_id"] == "d2"


def test_the_weighted_sum_has_the_weight_of_the_encoder(logs):
    asked = SearchArguments(query=("red boat",), run="run", logs=logs, fusion="weighted", encoder_weight=1.0)
    by_encoder = {r["doc_id"]: r["score"] for r in search(asked)["queries"][0]["results"]}
    by_bm25 = {
        r["doc_id"]: r["score"] for r in search(dataclasses.replace(asked, encoder_weight=0.0))["queries"][0]["results"]
    }
    # The best document of a list has the normalised score 1 and the last one 0. BM25 finds three of the four.
    assert sorted(by_encoder.values())[::3] == sorted(by_bm25.values())[::3] == [0.0, 1.0]
    assert by_bm25["d3"] == 0.0
    joined = search(dataclasses.replace(asked, encoder_weight=0.25))["queries"][0]["results"]
    for result in joined:
        wanted = 0.25 * by_encoder[result["doc_id"]] + 0.75 * by_bm25[result["doc_id"]]
        assert result["score"] == pytest.approx(wanted, abs=2e-4)


class PrefersKites:
    pairs_at_once = 2

    def score(self, queries, documents):
        return np.array([0.9 if "kite" in document else 0.1 for document in documents], np.float32)


def test_the_first_documents_are_reranked(logs, monkeypatch):
    theta = SimpleNamespace(discriminator=PrefersKites(), fitted={"kind": "lexical", "source": "clicks"})
    monkeypatch.setattr(module, "open_reranker", lambda *_: SimpleNamespace(theta=theta, origin="", chose_qr=True))
    asked = SearchArguments(query=("red car",), run="run", logs=logs, k=2)
    ranked = [r["doc_id"] for r in search(dataclasses.replace(asked, k=4))["queries"][0]["results"]]
    assert ranked.index("d3") >= 2
    # All four are reranked, of which two are printed; those that theta does not tell apart keep their order.
    results = search(dataclasses.replace(asked, rerank=4))["queries"][0]["results"]
    assert [(r["doc_id"], r["score"]) for r in results] == [("d3", 0.9), (ranked[0], 0.1)]
    # Of the first two, theta prefers none.
    results = search(dataclasses.replace(asked, k=4, rerank=2))["queries"][0]["results"]
    assert [r["doc_id"] for r in results] == ranked


def test_reranking_without_a_discriminator_names_the_remedy(logs):
    with pytest.raises(InputError, match="keeps no discriminator; name one with --reranker"):
        search(SearchArguments(query=("a",), run="run", logs=logs, rerank=10))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"k": 0}, "--k must be at least 1"),
        ({"fusion": "weighted"}, "--fusion weighted and --encoder-weight"),
        ({"fusion": "rrf", "encoder_weight": 0.5}, "--fusion weighted and --encoder-weight"),
        ({"fusion": "weighted", "encoder_weight": 1.5}, "--encoder-weight must lie in 0 to 1"),
        ({"fusion": "weighted", "encoder_weight": float("nan")}, "--encoder-weight must lie in 0 to 1"),
        ({"rerank": -1}, "--rerank must be at least 0"),
        ({"reranker": "folder"}, "--reranker names a discriminator"),
    ],
)
def test_impossible_arguments_are_refused(logs, given, words):
    with pytest.raises(InputError, match=words):
        search(SearchArguments(query=("a",), run="run", logs=logs, **given))


def test_the_command_line(logs):
    parsed = program.parse(search, ["--run", "r", "--logs", logs, "red car"])
    assert parsed.query == ("red car",)
    assert program.parse(search, ["--run", "r", "--logs", logs]).query == ()
