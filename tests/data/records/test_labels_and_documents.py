"""Labels as they are read, and the documents they name, in the logs or written by a language model."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax import artifacts
from crops_jax.errors import InputError
from crops_jax.hashing import document_id_words
from crops_jax.text import tokenizer
from data.labels.table import read_labels
from data.tables import write_table
from data.write_records import write_records
from tests.data.records.labels import all_records, arguments, label_rows, with_source, write_documents, write_labels


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("red", "d1", 4), ("red", "d2", 6)], r'column level: .*labels\.parquet, row 1 .*"6" is no level'),
        ([("red", "d1", 4), ("Red ", "d1", 3)], r"row 1 .* repeats the key .* once queries are normalised"),
        ([("red", None, 4)], r"column doc_id: .*row 0 .*null in a required column"),
        ([("re\0d", "d1", 4)], r"column query: .*row 0 .*a NUL character"),
        ([], "no labels"),
    ],
)
def test_wrong_labels_are_named(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read_labels(write_labels(tmp_path, rows))


def test_labels_are_read_from_a_folder_of_files_and_missing_columns_are_named(tmp_path):
    for number, rows in enumerate((label_rows(2), [("ZZ ", "d1", 4)])):
        write_labels(tmp_path / "part", rows)
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "part" / "labels.parquet").rename(tmp_path / "labels" / f"{number}.parquet")
    assert len(read_labels(tmp_path)) == len(label_rows(2)) + 1
    assert "zz" in read_labels(tmp_path)["query"].to_pylist()
    shutil.rmtree(tmp_path / "labels")
    pq.write_table(pa.table({"query": ["a"], "level": [1]}), tmp_path / "labels.parquet")
    with pytest.raises(InputError, match="column doc_id: missing from"):
        read_labels(tmp_path)
    (tmp_path / "labels.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match=r"labels\.parquet is not a Parquet file or is cut off"):
        read_labels(tmp_path)


def test_labels_of_other_logs_are_refused(logs, tmp_path):
    labels = write_labels(tmp_path / "labels", label_rows(), logs=logs)
    other = tmp_path / "other"
    other.mkdir()
    for file in logs.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    write_table(other, "judgements", pa.table({"query": ["x"], "doc_id": ["d0"], "grade": [2.0]}))
    with pytest.raises(InputError, match="were mined from other log tables"):
        write_records(arguments(labels, other, tmp_path / "records"))
    mined_again = tmp_path / "negatives"
    write_labels(mined_again, label_rows())
    artifacts.write_manifest(
        mined_again,
        artifacts.new_manifest(program="launch.mine_negatives", kind="labels", arguments={}, inputs={"labels": labels}),
    )
    with pytest.raises(InputError, match="were mined from other log tables"):
        write_records(arguments(mined_again, other, tmp_path / "records"))


def test_labels_whose_documents_nobody_knows_are_refused(logs, tmp_path):
    labels = write_labels(tmp_path / "labels", [("a", "nowhere", 4), ("b", "nowhere", 4)])
    with pytest.raises(InputError, match="no query to train on has a document whose text"):
        write_records(arguments(labels, logs, tmp_path / "records"))
    assert not (tmp_path / "records").exists()


def test_written_documents_come_from_a_directory_of_their_own(logs, tmp_path):
    documents = write_documents(tmp_path / "docs", {"k0": "garden clock", "new": "green bird"})
    rows = [("a", "new", 4), ("a", "k0", 4), ("b", "k1", 4)]
    labels = with_source(tmp_path / "labels", rows, ["knowledge_level"] * 3)
    given = {"knowledge_documents": str(documents), "dev_fraction": 0.0}
    write_records(arguments(labels, logs, tmp_path / "records", **given))
    tokens = tokenizer.load(tmp_path / "records" / "tokenizer")
    written = {t.tobytes() for record in all_records(tmp_path / "records") for t in record.document_tokens}
    texts = ["garden clock", "green bird", "what else"]
    assert written == {t.tobytes() for t in tokens.encode(texts, max_tokens=12)}
    inputs = artifacts.read_manifest(tmp_path / "records")["inputs"]
    assert inputs["knowledge_documents"]["fingerprint"] == artifacts.fingerprint(documents)


def test_written_documents_that_nobody_has_are_refused(logs, tmp_path):
    rows = [("a", "d1", 4), ("a", "lost", 4), ("b", "gone", 4), ("b", "k0", 4)]
    labels = with_source(tmp_path / "labels", rows, ["search_log"] + ["knowledge_level"] * 3)
    with pytest.raises(
        InputError, match=r"2 documents that a language model wrote \('gone', 'lost'\) are not in --logs"
    ):
        write_records(arguments(labels, logs, tmp_path / "records"))
    documents = write_documents(tmp_path / "docs", {"lost": "here"})
    given = {"knowledge_documents": str(documents)}
    with pytest.raises(InputError, match=r"1 documents .* \('gone'\) are neither in --logs .* nor in --knowledge-doc"):
        write_records(arguments(labels, logs, tmp_path / "records", **given))
    taken = write_documents(tmp_path / "taken", {"d1": "x"})
    with pytest.raises(InputError, match=r"'d1' is the id of a document of .* too"):
        write_records(arguments(labels, logs, tmp_path / "records", knowledge_documents=str(taken)))
    with pytest.raises(InputError, match=r"neither knowledge_documents\.parquet nor a folder"):
        write_records(arguments(labels, logs, tmp_path / "records", knowledge_documents=str(tmp_path / "labels")))


def test_labels_of_other_written_documents_are_refused(logs, tmp_path):
    documents = write_documents(tmp_path / "docs", {"new": "x"})
    other = write_documents(tmp_path / "other", {"new": "y"})
    labels = write_labels(tmp_path / "labels", label_rows())
    inputs = {"logs": logs, "knowledge_documents": documents}
    manifest = artifacts.new_manifest(program="data.mine", kind="labels", arguments={}, inputs=inputs)
    artifacts.write_manifest(labels, manifest)
    with pytest.raises(InputError, match="were mined with other written documents than --knowledge-documents"):
        write_records(arguments(labels, logs, tmp_path / "records", knowledge_documents=str(other)))
    write_records(arguments(labels, logs, tmp_path / "records", knowledge_documents=str(documents)))


def test_documents_with_one_hash_are_refused(logs, tmp_path, monkeypatch):
    def hashes(doc_ids):
        words = document_id_words(doc_ids)
        words[[doc_id in ("d3", "d7") for doc_id in doc_ids]] = (5, 6)
        return words

    monkeypatch.setattr("data.records.label_groups.document_id_words", hashes)
    labels = write_labels(tmp_path / "labels", label_rows())
    with pytest.raises(InputError, match=r"'d3' and 'd7' have the same 64-bit hash, .* \(1 such pair\)"):
        write_records(arguments(labels, logs, tmp_path / "records"))
    assert not (tmp_path / "records").exists()
