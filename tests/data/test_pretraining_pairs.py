"""data.pretraining_pairs on hand-made documents, and the road from its output to records."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest

from crops_jax import artifacts
from crops_jax.errors import InputError
from crops_jax.records import RecordSource
from crops_jax.text import tokenizer
from data.mine import mine
from data.mining.arguments import MineArguments
from data.pretraining_pairs import PretrainingPairsArguments, pretraining_pairs
from data.tables import open_logs
from data.write_records import WriteRecordsArguments, write_records


@pytest.fixture
def logs(write_logs, at):
    documents = [
        {"doc_id": "d3", "title": "Green Chair", "text": "The green chair is a chair to sit on", "published_at": at(0)},
        {"doc_id": "d1", "title": "Red Shoe", "text": "A shoe for running, red", "keywords": "sport"},
        {"doc_id": "d2", "title": "Blue garden lamp stand", "published_at": at(-1)},
        {"doc_id": "d0", "title": "Word", "published_at": at(-5)},
    ]
    judgements = [{"query": "secret", "doc_id": "d1", "grade": 3.0, "split": "test"}]
    return write_logs(documents=documents, judgements=judgements)


def arguments(logs, output, **changed):
    return PretrainingPairsArguments(logs=str(logs), output=str(output), **changed)


def test_each_document_gives_one_pair_and_no_judgement_is_copied(logs, tmp_path):
    outcome = pretraining_pairs(arguments(logs, tmp_path / "pairs"))
    assert outcome == {
        "pairs": str(tmp_path / "pairs"),
        "documents": 4,
        "pairs_of_titles": 2,
        "pairs_of_halves": 1,
        "left_out_with_too_few_words": 1,
        "left_out_published_later": 0,
    }
    written = open_logs(tmp_path / "pairs")
    assert written.names == {"documents", "judgements"}
    documents = {row["doc_id"]: row for row in written.read("documents").to_pylist()}
    assert {row["title"] for row in documents.values()} == {""}
    assert documents["d1"]["text"] == "sport A shoe for running, red"
    assert documents["d3"]["text"] == "The is a chair to sit on"
    pairs = {row["doc_id"]: row for row in written.read("judgements").to_pylist()}
    assert pairs["d1"] == {"query": "red shoe", "doc_id": "d1", "grade": 1.0, "split": "train"}
    assert pairs["d3"]["query"] == "green chair"
    assert {pairs["d2"]["query"], documents["d2"]["text"].lower()} == {"blue garden", "lamp stand"}


def test_documents_of_the_held_out_period_are_left_out(logs, tmp_path):
    outcome = pretraining_pairs(arguments(logs, tmp_path / "pairs", until="2024-05-31"))
    assert outcome["left_out_published_later"] == 1
    table = pq.read_table(tmp_path / "pairs" / "judgements.parquet")
    # d1 has no time, so it may be of any time.
    assert table["doc_id"].to_pylist() == ["d1", "d2"]
    assert artifacts.read_manifest(tmp_path / "pairs")["arguments"]["until"] == "2024-05-31"


def test_equal_documents_give_equal_bytes(logs, tmp_path):
    for name in ("one", "two"):
        pretraining_pairs(arguments(logs, tmp_path / name))
    assert artifacts.fingerprint(tmp_path / "one") == artifacts.fingerprint(tmp_path / "two")


def test_a_catalogue_without_pairs_is_refused(write_logs, tmp_path):
    judgements = [{"query": "q", "doc_id": "d0", "grade": 1.0}]
    logs = write_logs(documents=[{"doc_id": "d0", "title": "Word"}], judgements=judgements)
    with pytest.raises(InputError, match="no document has two words"):
        pretraining_pairs(arguments(logs, tmp_path / "pairs"))
    assert not (tmp_path / "pairs").exists()
    with pytest.raises(InputError, match="--until"):
        pretraining_pairs(arguments(logs, tmp_path / "pairs", until="tomorrow"))


def test_its_output_becomes_records_whose_vocabulary_knows_the_titles(logs, tmp_path):
    pretraining_pairs(arguments(logs, tmp_path / "pairs"))
    mine(
        MineArguments(
            logs=str(tmp_path / "pairs"),
            output=str(tmp_path / "labels"),
            judgements_as_labels=True,
            grade_levels="1=4",
        )
    )
    given = WriteRecordsArguments(
        labels=str(tmp_path / "labels"),
        logs=str(tmp_path / "pairs"),
        output=str(tmp_path / "records"),
        vocabulary_from=str(logs),
        vocabulary_size=400,
        dev_fraction=0.0,
    )
    write_records(given)
    vocabulary = tokenizer.load(tmp_path / "records" / "tokenizer")
    records = list(RecordSource(tmp_path / "records"))
    assert len(records) == 3
    assert {tuple(record.labelled_levels) for record in records} == {(4,)}
    expected = vocabulary.encode(["red shoe", "sport A shoe for running, red"], max_tokens=32)
    assert any(np.array_equal(record.query_tokens, expected[0]) for record in records)
    assert any(np.array_equal(record.document_tokens[0], expected[1]) for record in records)
    assert "vocabulary_from" in artifacts.read_manifest(tmp_path / "records")["inputs"]
    # From the pairs alone, no word of a title would be learnt that the text does not repeat.
    write_records(dataclasses.replace(given, vocabulary_from=None, output=str(tmp_path / "alone")))
    alone = tokenizer.load(tmp_path / "alone" / "tokenizer")
    assert len(alone.encode(["green"], max_tokens=32)[0]) > len(vocabulary.encode(["green"], max_tokens=32)[0])
