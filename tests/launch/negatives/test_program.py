"""The program, alone and between embedding and training."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax import artifacts, program
from crops_jax.runs.log import read_metrics
from crops_jax.training import train
from data.mine import MineArguments, mine
from data.write_records import WriteRecordsArguments, write_records
from launch.embed import EmbedArguments, embed
from launch.mine_negatives import MineNegativesArguments, mine_negatives
from tests.model_folders import write_bert
from tests.tiny_run import CONFIG as TINY
from tests.tiny_run import use_bag_encoder


def run_program(folders, capfd, *given_):
    named = {"labels": "labels", "query-embeddings": "queries", "document-embeddings": "documents", "output": "mined"}
    command = [f"--{name}={folders / place}" for name, place in named.items()]
    with pytest.raises(SystemExit) as ended:
        program.run(mine_negatives, example="", arguments=[*command, *given_])
    output, complaint = capfd.readouterr()
    assert "Traceback" not in complaint
    return ended.value.code, output, complaint


def test_the_program_prints_one_line_and_exits_with_its_status(folders, capfd):
    status, output, _ = run_program(folders, capfd, "--level", "1", "--absolute-margin", ".1")
    assert status == 0
    assert json.loads(output)["mined"] == 2
    for given_, message in (
        (("--level", "1"), "add --overwrite"),
        (("--level", "4"), "--level must be that of a negative"),
        (("--level", "1", "--top", "none"), "--top"),
        ((), "--level"),
        (("--level", "1", "--overwrite", "--logs", str(folders / "nowhere")), "nowhere"),
    ):
        status, output, complaint = run_program(folders, capfd, *given_)
        assert (status, output) == (2, "")
        assert message in complaint


@pytest.mark.slow
def test_embedded_mined_written_and_trained(tmp_path, monkeypatch):
    use_bag_encoder(monkeypatch)
    run = write_bert(tmp_path / "bert", layers=1)
    words = ["red", "blue", "shoe", "lamp", "garden", "hose"]
    titles = {f"d{i}": f"{words[i % 6]} {words[i % 5]} {i}" for i in range(30)}
    logs = tmp_path / "logs"
    logs.mkdir()
    pq.write_table(pa.table({"doc_id": list(titles), "title": list(titles.values())}), logs / "documents.parquet")
    judged = {"query": [], "doc_id": [], "grade": [], "split": []}
    for i in range(12):
        for doc_id, grade in ((f"d{i}", 1.0), (f"d{i + 1}", 0.0)):
            row = (f"{words[i % 6]} {words[i % 5]}", doc_id, grade, "train")
            for column, value in zip(judged.values(), row, strict=True):
                column.append(value)
    pq.write_table(pa.table(judged), logs / "judgements.parquet")
    mine(MineArguments(
        logs=str(logs), output=str(tmp_path / "labels"), judgements_as_labels=True, grade_levels="0=3,1=4"
    ))  # fmt: skip
    for tower, texts in (("query", tmp_path / "labels"), ("document", logs)):
        embed(EmbedArguments(run=str(run), texts=str(texts), tower=tower, output=str(tmp_path / tower)))
    outcome = mine_negatives(MineNegativesArguments(
        labels=str(tmp_path / "labels"), query_embeddings=str(tmp_path / "query"), level=1, per_query=3,
        document_embeddings=str(tmp_path / "document"), logs=str(logs), output=str(tmp_path / "mined"),
    ))  # fmt: skip
    assert outcome["mined"] == 3 * outcome["queries"]
    assert outcome["false_negatives"]["rate"] is None
    written = write_records(WriteRecordsArguments(
        labels=str(tmp_path / "mined"), logs=str(logs), output=str(tmp_path / "records"), vocabulary_size=60,
        max_tokens=12, max_query_tokens=6,
    ))  # fmt: skip
    assert written["texts_written_by_level"]["1"] > 0
    vocabulary = artifacts.read_manifest(tmp_path / "records")["tokenizer"]["vocabulary_size"]
    config = TINY.replace(encoder={"vocabulary_size": vocabulary}, training={"steps": 1}, data={"labels_per_query": 16})
    train(config, records_path=tmp_path / "records", run=tmp_path / "run")
    (line,) = read_metrics(tmp_path / "run")
    assert line["step"] == 1
    assert np.isfinite(line["loss"])
