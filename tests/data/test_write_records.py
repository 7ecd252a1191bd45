import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax import artifacts, records, tokenizer
from crops_jax.errors import InputError
from crops_jax.labels import document_id_words
from data.label_groups import choose_texts, group_labels
from data.label_table import read_labels
from data.tables import write_table
from data.write_records import WriteRecordsArguments, split_queries, write_records

ROOT = Path(__file__).parent.parent.parent
THINGS = ["red shoe", "blue lamp", "garden hose", "green chair", "white table", "old clock", "small bird", "long rope"]


def label_rows(queries: int = 12) -> list[tuple[str, str, int]]:
    """One positive of level 5, one of 4, hard negatives of levels 1 to 3, one unknown document a query."""
    rows = []
    for number in range(queries):
        query = f"{THINGS[number % 8]} {number}"
        rows += [(query, f"d{number}", 5), (query, f"k{number % 3}", 4), (query, f"gone{number}", 3)]
        rows += [(query, f"d{(number + other) % 12}", 1 + other % 3) for other in range(1, 9)]
    return rows


def write_labels(path: Path, rows, *, logs: Path | None = None) -> Path:
    table = pa.table(
        {
            "query": pa.array([row[0] for row in rows], pa.string()),
            "doc_id": pa.array([row[1] for row in rows], pa.string()),
            "level": pa.array([row[2] for row in rows], pa.int8()),
            "source": ["search_log"] * len(rows),
        }
    )
    path.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path / "labels.parquet")
    if logs is not None:
        manifest = artifacts.new_manifest(program="data.mine", kind="labels", arguments={}, inputs={"logs": logs})
        artifacts.write_manifest(path, manifest)
    return path


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    path = tmp_path_factory.mktemp("logs")
    documents = pa.table(
        {
            "doc_id": [f"d{i}" for i in range(12)],
            "title": [f"{THINGS[i % 8]} number {i}" for i in range(12)],
            "text": ["A long description of this thing. " * 20] + [None] * 11,
            "keywords": [f"thing{i % 2}" for i in range(12)],
        }
    )
    knowledge = pa.table(
        {
            "query": [f"{THINGS[i]} {i}" for i in range(3)],
            "doc_id": [f"k{i}" for i in range(3)],
            "title": ["what people know", "what else", ""],
            "text": ["about red shoes", "", ""],
            "model": ["m"] * 3,
            "prompt_sha256": ["0"] * 3,
        }
    )
    judgements = pa.table({"query": ["red shoe 0"], "doc_id": ["d0"], "grade": [1.0]})
    write_table(path, "documents", documents)
    write_table(path, "knowledge_documents", knowledge)
    write_table(path, "judgements", judgements)
    return path


def arguments(labels: Path, logs: Path, output: Path, **changed) -> WriteRecordsArguments:
    given = {"vocabulary_size": 120, "max_tokens": 12, "max_query_tokens": 8, "num_shards": 2, "dev_fraction": 0.2}
    return WriteRecordsArguments(labels=str(labels), logs=str(logs), output=str(output), **{**given, **changed})


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def all_records(path: Path) -> list[records.QueryRecord]:
    return [record for split in records.splits(path) for record in records.RecordSource(path, split=split)]


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


def test_queries_without_texts_or_positives_are_counted(logs, tmp_path):
    rows = [("a", "nowhere", 4), ("b", "d1", 2), ("b", "d2", 1), ("c", "d1", 4)]
    outcome = write_records(arguments(write_labels(tmp_path / "labels", rows), logs, tmp_path / "r", dev_fraction=0.0))
    assert (outcome["train"], outcome["dev"]) == (2, 0)
    assert outcome["queries_left_out_without_text"] == 1
    assert outcome["queries_without_positive"] == 1
    assert records.splits(tmp_path / "r") == {"train": 2}


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
    assert read_labels(tmp_path)["query"][-1].as_py() == "zz"
    shutil.rmtree(tmp_path / "labels")
    pq.write_table(pa.table({"query": ["a"], "level": [1]}), tmp_path / "labels.parquet")
    with pytest.raises(InputError, match="column doc_id: missing from"):
        read_labels(tmp_path)
    (tmp_path / "labels.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match=r"labels\.parquet is not a Parquet file or is cut off"):
        read_labels(tmp_path)


def table(rows) -> pa.Table:
    return pa.table(
        {"query": [r[0] for r in rows], "doc_id": [r[1] for r in rows], "level": pa.array([r[2] for r in rows], "i1")}
    )


@pytest.mark.parametrize(
    ("fives", "fours", "negatives", "expected"),
    [
        (1, 2, 20, (1, 2, 5)),
        (20, 20, 20, (6, 0, 2)),
        (3, 20, 20, (3, 3, 2)),
        (9, 0, 0, (8, 0, 0)),
        (0, 9, 1, (0, 7, 1)),
        (0, 0, 3, (0, 0, 3)),
    ],
)
def test_positives_come_first_and_a_quarter_is_kept_for_hard_negatives(fives, fours, negatives, expected):
    kinds = [5] * fives + [4] * fours + [1 + i % 3 for i in range(negatives)]
    groups = group_labels(table([("q", f"d{i}", level) for i, level in enumerate(kinds)] + [("other", "d0", 4)]))
    chosen = choose_texts(groups, np.ones(len(groups.levels), bool), documents_per_query=8, seed=0)
    levels = groups.levels[chosen & (groups.row_queries == groups.queries.index("q"))]
    assert ((levels == 5).sum(), (levels == 4).sum(), (levels < 4).sum()) == expected


def test_the_choice_of_texts_is_even_by_seed_and_not_by_what_else_is_there():
    rows = [("q", f"d{i}", 4) for i in range(12)]
    alone, among = group_labels(table(rows)), group_labels(table([*rows, *label_rows()]))

    def chosen(groups, seed):
        kept = choose_texts(groups, np.ones(len(groups.levels), bool), documents_per_query=4, seed=seed)
        kept &= groups.row_queries == groups.queries.index("q")
        return [groups.doc_ids[int(place)].as_py() for place in groups.documents[kept]]

    assert chosen(alone, 0) == chosen(among, 0)
    counts = np.unique([doc_id for seed in range(600) for doc_id in chosen(alone, seed)], return_counts=True)[1]
    assert counts == pytest.approx(np.full(12, 200), abs=60)


def test_documents_without_text_take_no_place():
    groups = group_labels(table([("q", f"d{i}", 4) for i in range(6)]))
    has_text = np.array([False, True, False, True, True, False])
    assert (choose_texts(groups, has_text, documents_per_query=3, seed=0) == has_text).all()


def test_splits_follow_from_the_query_alone_and_both_get_one():
    groups = group_labels(table([(f"query {i}", "d", 4) for i in range(4000)]))
    is_dev = split_queries(groups, dev_fraction=0.1)
    assert is_dev.mean() == pytest.approx(0.1, abs=0.02)
    dev = {query for query, is_dev in zip(groups.queries, is_dev) if is_dev}
    fewer = group_labels(table([(f"query {i}", "d", 4) for i in range(2000)]))
    assert {q for q, d in zip(fewer.queries, split_queries(fewer, dev_fraction=0.1)) if d} == dev & set(fewer.queries)
    two = group_labels(table([("a", "d", 1), ("b", "d", 4)]))
    for fraction in (1e-9, 1 - 1e-9):
        assert split_queries(two, dev_fraction=fraction).sum() == 1
    assert not split_queries(two, dev_fraction=0.0).any()


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
