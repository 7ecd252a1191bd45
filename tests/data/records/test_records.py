"""What is written for which labels."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from crops_jax import artifacts, records
from crops_jax.errors import InputError
from crops_jax.hashing import document_id_words
from crops_jax.text import tokenizer
from data.write_records import WriteRecordsArguments, write_records
from tests.data.records.labels import THINGS, all_records, arguments, files_of, label_rows, write_labels
from tests.paths import ROOT


@pytest.fixture(scope="module")
def written(logs, tmp_path_factory):
    path = tmp_path_factory.mktemp("written")
    labels = write_labels(path / "labels", label_rows(), logs=logs)
    outcome = write_records(arguments(labels, logs, path / "records", documents_per_query=6))
    return path / "records", outcome


def test_every_label_keeps_its_id_and_some_documents_their_texts(written):
    path, outcome = written
    tokens = tokenizer.load(path / "tokenizer")
    by_query = {record.query_tokens.tobytes(): record for record in all_records(path)}
    assert len(by_query) == 12
    for number in range(12):
        query = f"{THINGS[number % 8]} {number}"
        rows = {tuple(document_id_words([doc_id])[0]): level for q, doc_id, level in label_rows() if q == query}
        record = by_query[tokens.encode([query], max_tokens=8)[0].tobytes()]
        assert dict(zip(map(tuple, record.labelled_ids), record.labelled_levels)) == rows
        assert len(record.document_ids) == 6
        assert all(rows[tuple(words)] == level for words, level in zip(record.document_ids, record.document_levels))
        assert record.document_levels[0] == 5
        title = f"{THINGS[number % 8]} number {number} thing{number % 2}"
        text = title + " A long description of this thing." * (20 if number == 0 else 0)
        np.testing.assert_array_equal(record.document_tokens[0], tokens.encode([text], max_tokens=12)[0])
    assert outcome["train"] + outcome["dev"] == 12
    assert outcome["dev"] >= 1
    assert outcome["labels"] == len(label_rows())
    assert outcome["documents_unknown"] == 12
    assert outcome["documents_without_text"] == 1
    assert outcome["documents_cut"] >= 1
    assert outcome["greatest_labels_of_a_query"] == 11
    assert outcome["texts_written"] == 72
    # Of 11 labels a query one is unknown, and every third query's knowledge document has no text.
    assert outcome["texts_beyond_documents_per_query"] == 12 * 10 - 4 - 72
    assert outcome["positive_texts_beyond_documents_per_query"] == 0


def test_the_manifest_names_the_tokenizer_and_what_was_read(written, logs):
    path, outcome = written
    manifest = artifacts.read_manifest(path)
    assert manifest["kind"] == "records"
    assert manifest["inputs"]["logs"]["fingerprint"] == artifacts.fingerprint(logs)
    assert manifest["tokenizer"] == {
        "fingerprint": tokenizer.fingerprint(path / "tokenizer"),
        "vocabulary_size": outcome["vocabulary_size"],
    }


def test_the_order_of_labels_and_the_run_do_not_matter(written, logs, tmp_path):
    path, _ = written
    labels = write_labels(tmp_path / "labels", label_rows()[::-1])
    write_records(arguments(labels, logs, tmp_path / "records", documents_per_query=6))
    ours, theirs = files_of(path), files_of(tmp_path / "records")
    del ours["manifest.json"], theirs["manifest.json"]
    assert ours == theirs


def test_a_tokenizer_that_is_given_is_copied(written, logs, tmp_path):
    path, _ = written
    labels = write_labels(tmp_path / "labels", label_rows())
    given = arguments(labels, logs, tmp_path / "records", tokenizer=str(path / "tokenizer"))
    write_records(given)
    assert tokenizer.fingerprint(tmp_path / "records" / "tokenizer") == tokenizer.fingerprint(path / "tokenizer")
    with pytest.raises(InputError, match="exists; add --overwrite"):
        write_records(given)
    write_records(dataclasses.replace(given, overwrite=True))


def test_queries_without_texts_or_positives_are_counted(logs, tmp_path):
    rows = [("a", "nowhere", 4), ("b", "d1", 2), ("b", "d2", 1), ("c", "d1", 4)]
    outcome = write_records(arguments(write_labels(tmp_path / "labels", rows), logs, tmp_path / "r", dev_fraction=0.0))
    assert (outcome["train"], outcome["dev"]) == (2, 0)
    assert outcome["queries_left_out_without_text"] == 1
    assert outcome["queries_without_positive"] == 1
    assert records.splits(tmp_path / "r") == {"train": 2}


@pytest.mark.parametrize(
    ("rows", "changed", "splits"),
    [
        ([("a", "d1", 4)], {"dev_fraction": 0.5}, {"train": 1}),
        ([("a", "d1", 4), ("b", "d1", 4)], {"num_shards": 50}, {"train": 1, "dev": 1}),
        ([("商品 é\u0301", "d1", 4), ("b", "d2", 3)], {"num_shards": 1, "dev_fraction": 0.0}, {"train": 2}),
        ([("a", "d1", 2), ("b", "d2", 1)], {"dev_fraction": 0.0}, {"train": 2}),
    ],
)
def test_tables_of_one_or_two_rows(logs, tmp_path, rows, changed, splits):
    outcome = write_records(arguments(write_labels(tmp_path / "labels", rows), logs, tmp_path / "records", **changed))
    assert records.splits(tmp_path / "records") == splits
    assert outcome["queries_without_positive"] == sum(level < 4 for *_, level in rows)
    assert sum(len(record.labelled_ids) for record in all_records(tmp_path / "records")) == len(rows)


def test_a_query_with_very_many_labels_keeps_all_ids(logs, tmp_path):
    rows = [("many", f"文{i}", 1 + i % 5) for i in range(100_000)] + [("many", "d1", 5), ("b", "d2", 4)]
    labels = write_labels(tmp_path / "labels", rows)
    outcome = write_records(arguments(labels, logs, tmp_path / "records", dev_fraction=0.0, workers=1))
    assert outcome["greatest_labels_of_a_query"] == 100_001
    lengths = sorted(len(record.labelled_ids) for record in all_records(tmp_path / "records"))
    assert lengths == [1, 100_001]
    assert records.RecordSource(tmp_path / "records").labelled_per_query == 100_001


@pytest.mark.parametrize("name", ["vocabulary_size", "max_tokens", "documents_per_query", "num_shards"])
def test_sizes_beyond_reason_are_refused_before_anything_is_read(name):
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} must be at most"):
        WriteRecordsArguments(labels="labels", logs="logs", output="records", **{name: 10**20})


def test_the_command_prints_its_outcome_and_refuses_with_status_2(logs, tmp_path):
    labels = write_labels(tmp_path / "labels", label_rows(), logs=logs)
    command = [sys.executable, "-m", "data.write_records", "--labels", labels, "--logs", logs, "--output"]
    done = subprocess.run([*command, tmp_path / "records"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["queries"] == 12
    again = subprocess.run([*command, tmp_path / "records"], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 2
    assert "add --overwrite" in again.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_all_documents_are_written_with_a_text_whatever_is_labelled(written, logs, tmp_path, workers):
    labels = write_labels(tmp_path / "labels", label_rows(2), logs=logs)
    made = arguments(labels, logs, tmp_path / "records", all_documents=True, workers=workers, num_shards=3)
    outcome = write_records(made)
    tokens = tokenizer.load(tmp_path / "records" / "tokenizer")
    source = records.RecordSource(tmp_path / "records", split=records.ALL_DOCUMENTS)
    cut = 0
    for number, record in enumerate(source):
        title = f"{THINGS[number % 8]} number {number} thing{number % 2}"
        text = title + " A long description of this thing." * (20 if number == 0 else 0)
        cut += len(tokens.encode([text], max_tokens=999)[0]) > 12
        assert record.document_ids.tolist() == document_id_words([f"d{number}"]).tolist()
        np.testing.assert_array_equal(record.document_tokens[0], tokens.encode([text], max_tokens=12)[0])
        assert (len(record.query_tokens), record.document_levels.tolist(), len(record.labelled_ids)) == (0, [0], 0)
    assert (outcome["all_documents"], outcome["all_documents_cut"], len(source)) == (12, cut, 12)
    # The other splits do not depend on it.
    plain = write_records(dataclasses.replace(made, output=str(tmp_path / "plain"), all_documents=False, workers=1))
    assert {name: value for name, value in outcome.items() if name in plain and name != "records"} == {
        name: value for name, value in plain.items() if name != "records"
    }
    kept = files_of(tmp_path / "records")
    assert all(kept[name] == content for name, content in files_of(tmp_path / "plain").items() if "tfrecord" in name)


def test_all_documents_are_not_written_with_spark(logs, tmp_path):
    with pytest.raises(ValueError, match="--all-documents writes on one machine"):
        arguments(tmp_path, logs, tmp_path / "records", all_documents=True, backend="pyspark")
