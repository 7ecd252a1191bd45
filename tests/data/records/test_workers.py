"""Any number of workers, and Spark, write the same bytes; a worker that is killed leaves nothing."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax.errors import InputError, NamedFailure
from data.records.label_groups import group_labels
from data.write_records import _worthwhile_workers, write_records
from tests.data.records.killed_worker import KilledAtRecords
from tests.data.records.labels import arguments, files_of, label_rows, table, with_source, write_documents, write_labels


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
    monkeypatch.setattr("data.write_records._MIN_ROWS_FOR_WORKERS", len(groups.levels))
    assert _worthwhile_workers(groups) == 63
    monkeypatch.setattr("data.write_records.usable_cores", lambda: 1)
    assert _worthwhile_workers(groups) == 1


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
