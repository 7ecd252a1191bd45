"""Which documents become negatives."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crops_jax import artifacts
from crops_jax.embeddings import open_embeddings
from crops_jax.errors import InputError
from crops_jax.hashing import id_hashes
from crops_jax.retrieval.hard_negatives import Selection
from data.inspect import describe
from data.labels.assign_levels import LABEL_SCHEMA, PRECEDENCE
from data.labels.table import open_labels
from launch.mine_negatives import mine_negatives
from launch.negatives.mined_labels import SOURCE, MinedLabels
from launch.negatives.neighbours import Block, NegativesCorpus, mine_block
from launch.negatives.tally import Tally
from tests.embedding_folders import at_cosines, write_embeddings
from tests.launch.negatives.labelled import COSINES, ENTRY, KEPT, LABELS, arguments, new_rows, read_rows, write_labels


def test_the_nearest_documents_that_are_no_positives_become_negatives(folders):
    outcome = mine_negatives(arguments(folders, per_query=2))
    rows = {row["doc_id"]: row for row in read_rows(folders / "mined")}
    assert list(rows) == ["a", "b", "c", "e", "f"]
    mined = '[{"source": "model_mined", "level": 2, "score": 0.8, ' + ENTRY + "]"
    assert rows["b"] == {
        "query": "red shoe", "doc_id": "b", "level": 2, "source": SOURCE, "score": 0.8, "evidence": mined
    }  # fmt: skip
    assert rows["a"] == dict(zip(LABEL_SCHEMA.names, LABELS[0], strict=True))
    # e is a negative of a higher level: it keeps its row, and the model's word is added to its evidence.
    again = '{"source": "model_mined", "level": 2, "score": 0.6, ' + ENTRY
    assert (rows["e"]["level"], rows["e"]["source"], rows["e"]["score"]) == (3, "shown_not_clicked", None)
    assert rows["e"]["evidence"] == f"[{again}, {KEPT[1:]}"
    # f is one of a lower level: as everywhere the highest wins.
    assert (rows["f"]["level"], rows["f"]["source"], rows["f"]["score"]) == (2, SOURCE, 0.5)
    assert json.loads(rows["f"]["evidence"])[0]["score"] == 0.5
    assert outcome["rows"] == 5
    assert (outcome["mined"], outcome["met_again"], outcome["raised"]) == (2, 2, 1)
    assert (outcome["queries"], outcome["documents"], outcome["positives_passed_over"]) == (1, 7, 1)
    assert outcome["by_source"] == {"model_mined": 3, "search_log": 1, "shown_not_clicked": 1}
    assert outcome["by_level"] == {"2": 3, "3": 1, "4": 1}
    assert outcome["scores"]["mined"] == {"mean": 0.8, "least": 0.8, "greatest": 0.8}
    assert outcome["false_negatives"]["why"] == "no --logs was given"
    described = describe(folders / "mined")
    assert described["sources"] == outcome["by_source"]
    assert artifacts.read_manifest(folders / "mined")["mined"]["mined"] == 2


def test_vectors_of_one_byte_a_number_are_mined_from(folders):
    write_embeddings(
        folders / "bytes", list(COSINES), at_cosines(*COSINES.values()), tower="document", shard_rows=3, dtype="int8"
    )
    outcome = mine_negatives(arguments(folders, per_query=2, document_embeddings=str(folders / "bytes")))
    assert outcome["search"] == {"kind": "exact", "document_vectors": "int8"}
    assert new_rows(folders / "mined") == ["b", "c", "f"]
    assert outcome["scores"]["mined"]["mean"] == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize(
    ("given_", "taken"),
    [
        ({}, "bcdg"),
        ({"per_query": 1}, "b"),
        ({"top": 3}, "bcd"),
        ({"top": 4, "skip": 1}, "cd"),
        ({"top": 6, "skip": 5}, "g"),
        ({"top": 1000}, "bcdg"),
        ({"absolute_margin": 0.1}, "dg"),
        ({"absolute_margin": 0.099999}, "bcdg"),
        ({"relative_margin": 0.2}, "dg"),
        ({"relative_margin": 0.3, "absolute_margin": 0.0}, "g"),
        ({"sampling": "random", "per_query": 100}, "bcdg"),
    ],
)
def test_window_and_margins(folders, given_, taken):
    outcome = mine_negatives(arguments(folders, **given_))
    # Level 2 raises f too wherever it is considered.
    assert [doc_id for doc_id in new_rows(folders / "mined") if doc_id != "f"] == list(taken)
    assert outcome["mined"] == len(taken)


def test_a_margin_to_the_least_positive_is_one_to_each(folders):
    write_labels(folders / "two", [*LABELS[:1], ("red shoe", "d", 5, "query_level", 0.9, None)])
    mine_negatives(arguments(folders, labels=str(folders / "two"), absolute_margin=0.05))
    assert new_rows(folders / "mined") == ["b", "c", "e", "f", "g"]
    mine_negatives(
        arguments(folders, labels=str(folders / "two"), absolute_margin=0.05, margin_to="least", overwrite=True)
    )
    assert new_rows(folders / "mined") == ["e", "f", "g"]


def test_a_table_in_a_folder_gives_the_same_bytes(folders):
    write_labels(folders / "many", LABELS[::-1], files=3)
    mine_negatives(arguments(folders))
    mine_negatives(arguments(folders, labels=str(folders / "many"), output=str(folders / "again")))
    name = "labels.parquet"
    assert (folders / "mined" / name).read_bytes() == (folders / "again" / name).read_bytes()
    mine_negatives(arguments(folders, output=str(folders / "third")))
    for file in (name, "manifest.json"):
        assert (folders / "mined" / file).read_bytes() == (folders / "third" / file).read_bytes()


def test_mining_twice_adds_nothing(folders):
    mine_negatives(arguments(folders, per_query=8))
    outcome = mine_negatives(arguments(folders, labels=str(folders / "mined"), output=str(folders / "again")))
    assert outcome["mined"] == 0
    assert read_rows(folders / "again") == read_rows(folders / "mined")


def test_queries_that_nothing_can_be_mined_for_are_counted(folders):
    rows = [*LABELS, ("lamp", "a", 2, "ranked_not_shown", None, None), ("hat", "a", 4, "search_log", None, None)]
    write_labels(folders / "more", rows)
    named = {"labels": str(folders / "more")}
    with pytest.raises(
        InputError, match=r"1 queries .* no vector, 'hat' the first; .*--texts .*--missing-queries count"
    ):
        mine_negatives(arguments(folders, **named))
    outcome = mine_negatives(arguments(folders, missing_queries="count", **named))
    assert (outcome["queries"], outcome["queries_without_positive"], outcome["queries_without_vector"]) == (1, 1, 1)
    assert {row["query"] for row in read_rows(folders / "mined") if row["source"] == SOURCE} == {"red shoe"}
    assert outcome["queries_with_fewer"] == 1


def test_a_query_whose_positive_has_no_vector_keeps_no_margin(folders):
    rows = [("red shoe", "unknown", 4, "search_log", None, None), ("lamp", "a", 4, "search_log", None, None)]
    write_labels(folders / "more", rows)
    outcome = mine_negatives(arguments(folders, labels=str(folders / "more"), absolute_margin=0.0))
    assert outcome["positives_without_vector"] == 1
    assert outcome["queries_without_scored_positive"] == 1
    assert {row["query"] for row in read_rows(folders / "mined") if row["source"] == SOURCE} <= {"lamp"}
    outcome = mine_negatives(arguments(folders, labels=str(folders / "more"), overwrite=True))
    assert outcome["mined"] == 7 + 6


def test_one_document_and_it_is_the_positive(folders):
    write_embeddings(folders / "single", ["a"], [[1, 0]], tower="document")
    outcome = mine_negatives(arguments(folders, document_embeddings=str(folders / "single")))
    assert outcome["mined"] == 0
    assert outcome["queries_with_none"] == 1
    assert read_rows(folders / "mined") == [dict(zip(LABEL_SCHEMA.names, row, strict=True)) for row in LABELS]


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_known_positive_is_ever_mined_and_tiles_decide_nothing(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any")
    queries, documents = 6, 12
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    # Few distinct vectors: many ties.
    vectors = [np.round(random.standard_normal((count, 3))) + [0.1, 0, 0] for count in (queries, documents)]
    pairs = data.draw(
        st.dictionaries(
            st.tuples(st.integers(0, queries - 1), st.integers(0, documents - 1)), st.integers(0, 5), min_size=1
        )
    )
    rows = [(f"q{q}", f"d{d}", level, "search_log", None, None) for (q, d), level in sorted(pairs.items())]
    labels = write_labels(path / "labels", rows)
    query_ids, doc_ids = [f"q{i}" for i in range(queries)], [f"d{i}" for i in range(documents)]
    write_embeddings(path / "queries", query_ids, vectors[0], tower="query", shard_rows=2)
    write_embeddings(path / "documents", doc_ids, vectors[1], tower="document", shard_rows=5)
    selection = Selection(
        top=data.draw(st.sampled_from([2, 20])),
        per_query=data.draw(st.integers(1, 5)),
        sampling=data.draw(st.sampled_from(["top", "random"])),
        absolute_margin=data.draw(st.sampled_from([None, 0.0, 0.3])),
    )
    found = []
    for block_rows, block_queries in ((3, 2), (100, 100)):
        embedded = open_embeddings(path / "queries"), open_embeddings(path / "documents")
        corpus = NegativesCorpus(embedded[1], block_rows=block_rows)
        mined = set()
        with open_labels(labels) as (connection, _):
            table = MinedLabels(connection, query_ids=query_ids, doc_ids=doc_ids, memory_limit="100MB")
            for _, vector_rows, names, labelled in table.blocks(block_queries):
                block = Block(embedded[0].array()[vector_rows], id_hashes(names), labelled)
                for some in mine_block(block, corpus, selection, Tally(selection), progress=lambda pairs: None):
                    for query, document, score, new in zip(*some, strict=True):
                        mined.add((names[query], doc_ids[document], score, bool(new)))
        found.append(mined)
    assert found[0] == found[1]
    known = {(f"q{q}", f"d{d}"): level for (q, d), level in pairs.items()}
    for query, document, _, new in found[0]:
        assert known.get((query, document), -1) < 4
        assert new == ((query, document) not in known)
        assert any(level >= 4 for (other, _), level in known.items() if other == query)


def test_scann_finds_the_same_among_few(folders):
    pytest.importorskip("scann")
    mine_negatives(arguments(folders))
    outcome = mine_negatives(arguments(folders, search="scann", output=str(folders / "scann")))
    assert outcome["search"]["kind"].startswith("scann")
    assert (folders / "scann" / "labels.parquet").read_bytes() == (folders / "mined" / "labels.parquet").read_bytes()


def test_the_source_has_its_place_among_all():
    assert PRECEDENCE[-1] == SOURCE
