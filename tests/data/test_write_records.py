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
from crops_jax.errors import InputError, NamedFailure
from crops_jax.labels import document_id_words
from data.label_groups import choose_texts, group_labels, query_hashes
from data.label_table import read_labels
from data.record_counts import sum_counts, text_counts
from data.tables import write_table
from data.write_records import WriteRecordsArguments, _worthwhile_workers, split_queries, write_records
from tests.data.killed_worker import KilledAtRecords

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
    assert "zz" in read_labels(tmp_path)["query"].to_pylist()
    shutil.rmtree(tmp_path / "labels")
    pq.write_table(pa.table({"query": ["a"], "level": [1]}), tmp_path / "labels.parquet")
    with pytest.raises(InputError, match="column doc_id: missing from"):
        read_labels(tmp_path)
    (tmp_path / "labels.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match=r"labels\.parquet is not a Parquet file or is cut off"):
        read_labels(tmp_path)


def table(rows) -> pa.Table:
    return pa.table(
        {
            "query": [row[0] for row in rows],
            "doc_id": [row[1] for row in rows],
            "level": pa.array([row[2] for row in rows], "i1"),
            "written": [False] * len(rows),
        }
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


def test_any_number_of_workers_writes_the_same_bytes(logs, tmp_path):
    labels = write_labels(tmp_path / "labels", label_rows(30), logs=logs)
    outcomes = [
        write_records(arguments(labels, logs, tmp_path / f"{workers}", workers=workers, num_shards=3))
        for workers in (1, 2)
    ]
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")
    assert outcomes[0] | {"records": ""} == outcomes[1] | {"records": ""}


def test_a_worker_that_is_killed_leaves_nothing(logs, tmp_path, monkeypatch):
    monkeypatch.setattr("data.write_records.RecordWorker", KilledAtRecords)
    labels = write_labels(tmp_path / "labels", label_rows())
    with pytest.raises(NamedFailure, match="a worker process was killed by signal 9"):
        write_records(arguments(labels, logs, tmp_path / "records", workers=2))
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]


def test_little_work_starts_no_workers(logs, tmp_path, monkeypatch):
    monkeypatch.setattr("data.write_records.usable_cores", lambda: 64)
    groups = group_labels(table(label_rows()))
    assert _worthwhile_workers(groups) == 1
    monkeypatch.setattr("data.write_records._WORTH_WORKERS", len(groups.levels))
    assert _worthwhile_workers(groups) == 64


def write_documents(path: Path, titles: dict[str, str]) -> Path:
    path.mkdir()
    rows = {
        "query": ["a"] * len(titles),
        "doc_id": list(titles),
        "title": list(titles.values()),
        "text": [""] * len(titles),
        "model": ["m"] * len(titles),
        "prompt_sha256": ["0"] * len(titles),
    }
    write_table(path, "knowledge_documents", pa.table(rows))
    return path


def with_source(path: Path, rows, sources: list[str]) -> Path:
    file = write_labels(path, rows) / "labels.parquet"
    labels = pq.read_table(file)
    pq.write_table(labels.set_column(labels.column_names.index("source"), "source", pa.array(sources)), file)
    return path


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

    monkeypatch.setattr("data.label_groups.document_id_words", hashes)
    labels = write_labels(tmp_path / "labels", label_rows())
    with pytest.raises(InputError, match=r"'d3' and 'd7' have the same 64-bit hash, .* \(1 such pair\)"):
        write_records(arguments(labels, logs, tmp_path / "records"))
    assert not (tmp_path / "records").exists()


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


def test_counts_of_parts_add_up_to_those_of_the_whole():
    def counts(rows):
        groups = group_labels(table(rows))
        has_text = np.array([not groups.doc_ids[int(d)].as_py().startswith("gone") for d in groups.documents])
        chosen = choose_texts(groups, has_text, documents_per_query=4, seed=0)
        return text_counts(groups, has_text, chosen, queries_cut=1)

    rows = [*label_rows(), ("last", "d1", 2)]
    parts = [[row for row in rows if hash_bit(row[0]) == bit] for bit in (0, 1)]
    assert sum_counts(map(counts, parts)) == counts(rows) | {"queries_cut": 2}


def hash_bit(query: str) -> int:
    return int(query_hashes([query])[0] & np.uint64(1))


@pytest.mark.slow
def test_spark_writes_the_same_bytes(logs, tmp_path):
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    documents = write_documents(tmp_path / "docs", {"k0": "garden clock", "new": "green bird"})
    rows = [*label_rows(40), ("Red  SHOE 文", "new", 4), ("no text", "gone1", 4)]
    labels = with_source(tmp_path / "labels", rows, ["search_log"] * (len(rows) - 2) + ["knowledge_level"] * 2)
    rows_of = pq.read_table(labels / "labels.parquet").slice(0, len(rows) - 1)
    (labels / "labels.parquet").unlink()
    (labels / "labels").mkdir()
    for number, part in enumerate((rows_of.slice(0, 100), rows_of.slice(100))):
        pq.write_table(part, labels / "labels" / f"{number}.parquet")
    for changed in ({"num_shards": 7}, {"num_shards": 1, "dev_fraction": 1e-9}, {"dev_fraction": 0.0}):
        given = {"knowledge_documents": str(documents), "documents_per_query": 6, "overwrite": True, **changed}
        ours = write_records(arguments(labels, logs, tmp_path / "ours", **given))
        spark = {"backend": "pyspark", "spark_master": "local[2]"}
        theirs = write_records(arguments(labels, logs, tmp_path / "theirs", **given, **spark))
        assert files_of(tmp_path / "ours") == files_of(tmp_path / "theirs")
        assert ours | {"records": ""} == theirs | {"records": ""}
    rows = pa.concat_tables([rows_of, rows_of.slice(0, 1).set_column(1, "doc_id", pa.array(["lost"]))])
    lost = rows.slice(len(rows) - 1).set_column(3, "source", pa.array(["knowledge_level"]))
    pq.write_table(lost, labels / "labels" / "2.parquet")
    with pytest.raises(InputError, match=r"1 documents that a language model wrote \('lost'\)"):
        write_records(arguments(labels, logs, tmp_path / "theirs", **given, **spark))


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
