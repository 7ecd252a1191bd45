"""data.inspect: every kind of directory is described, and every broken one is refused by file and record."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax import artifacts, embeddings, records
from crops_jax.config import Config
from crops_jax.discriminator import LexicalDiscriminator
from crops_jax.discriminator.lexical_features import CorpusStatistics
from crops_jax.errors import InputError
from crops_jax.hashing import document_id_words
from crops_jax.runs.checkpoints import Best, Checkpoints, Progress
from crops_jax.text import tokenizer, wordpiece
from crops_jax.training.optimizer import make_optimizer
from crops_jax.training.state import TrainState, save_state
from data.inspect import describe
from data.mining.relevance import theta
from data.tables import write_table
from tests.model_folders import write_bert
from tests.paths import ROOT

TEXTS = ["red shoe", "blue shoe", "a tie of silk", "silk shoe"]


def written(path, kind):
    return artifacts.output_directory(path, overwrite=False, program=f"data.{kind}", kind=kind, arguments={}, inputs={})


def signed(path, kind, **extra):
    artifacts.write_manifest(
        path, artifacts.new_manifest(program=f"launch.{kind}", kind=kind, arguments={}, inputs={}, **extra)
    )


def make_discriminator(folder):
    corpus = CorpusStatistics.from_texts(TEXTS)
    queries, documents = ["red shoe", "red shoe", "tie", "tie"], ["red shoe", "a tie", "a tie", "red shoe"]
    fitted = LexicalDiscriminator.fit(queries, documents, np.array([1.0, 0.0, 1.0, 0.0]), corpus=corpus)
    about = {field.name: None for field in dataclasses.fields(theta.Fitted)}
    theta.save_theta(theta.Theta(fitted, about), folder)
    signed(folder, "discriminator")


def make_logs(path):
    with written(path, "logs") as out:
        write_table(out, "documents", pa.table({"doc_id": ["d1", "d2"], "title": TEXTS[:2]}))
        judged = pa.table({"query": ["shoe"] * 2, "doc_id": ["d1", "gone"], "grade": [1, 0], "split": ["train", None]})
        write_table(out, "judgements", judged)
        make_discriminator(out / "discriminator")
    return path


def make_labels(path):
    with written(path, "labels") as out:
        table = {
            "query": ["shoe", "shoe", "tie"],
            "doc_id": ["d1", "d2", "d1"],
            "level": pa.array([5, 3, 4], pa.int8()),
            "source": ["query_level", "shown", "search_log"],
            "score": [0.9, None, None],
            "evidence": ['[{"source": "query_level"}]', "[]", "[]"],
        }
        pq.write_table(pa.table(table), out / "labels.parquet")
        (out / "alpha_sweep.json").write_text("[]")
    return path


def make_tokenizer(folder):
    return tokenizer.save(wordpiece.learn_wordpiece(lambda: iter(TEXTS), vocabulary_size=60), folder)


def make_records(path):
    with written(path, "records") as out:
        encoded = make_tokenizer(out / "tokenizer").encode(TEXTS, max_tokens=16)
        ids = document_id_words(["d1", "d2"])
        record = records.QueryRecord(
            encoded[0], ids[:1], np.array([4], np.int32), (encoded[1],), ids, np.array([4, 1], np.int32)
        )
        records.write_records(out, [record] * 3, num_shards=2)
        records.write_records(out, [record], num_shards=1, split="dev")
    return path


def make_run(path):
    path.mkdir()
    (path / "config.json").write_text("{}")
    make_tokenizer(path / "tokenizer")
    parameters = {"tower": {"kernel": jnp.ones((2, 3))}, "log_inverse_temperature": jnp.float32(3)}
    optimizer = make_optimizer(Config().optimizer, steps=10)
    saved = Checkpoints(path, Config(), keep_last=2)
    for step in (5, 10):
        save_state(saved, TrainState(jnp.int32(step), parameters, optimizer.init(parameters)), Progress(Best(5, 0.5)))
    saved.wait()
    saved.close()
    (path / "metrics.jsonl").write_text('{"step": 5, "loss": 2.0}\n{"step": 10, "loss": 1.0}\n{"step": 1')
    signed(path, "run")
    return path


def make_embeddings(path):
    path.mkdir()
    layout = embeddings.Layout(rows=3, dim=2, shard_rows=2)
    signed(path, "embeddings", layout=layout._asdict())
    for shard, ids in enumerate((["a", "b"], ["c"])):
        embeddings.write_shard(path, layout, shard, ids=ids, vectors=np.ones((len(ids), 2), np.float32))
    return path


def make_evaluation(path):
    with written(path, "evaluation") as out:
        (out / "metrics.json").write_text('{"recall": 0.5}')
        pq.write_table(pa.table({"query": ["a", "b"], "value": [0.0, 1.0]}), out / "per_query.parquet")
    return path


def make_encoder(path):
    with written(path, "encoder") as out:
        write_bert(out)
    return path


def make_work(path):
    path.mkdir()
    make_logs(path / "split")
    (path / "search_log").mkdir()
    make_labels(path / "search_log" / "labels")
    (path / "steps.json").write_text('{"hold out": {}}')
    signed(path, "work")
    return path


def make_comparison(path):
    (path / "shared").mkdir(parents=True)
    make_labels(path / "shared" / "labels")
    (path / "results").mkdir()
    (path / "results" / "nce-hashed-0.json").write_text('{"format": 1, "values": {"ndcg@4": [0.5, 1.0]}}')
    (path / "results" / "nce-hashed.tuning.json").write_text('{"format": 1, "found": {"1.0": 0.5}}')
    signed(path, "comparison")
    return path


MAKERS = {
    "logs": make_logs,
    "labels": make_labels,
    "records": make_records,
    "run": make_run,
    "embeddings": make_embeddings,
    "evaluation": make_evaluation,
    "encoder": make_encoder,
    "work": make_work,
    "comparison": make_comparison,
}
EXPECTED = {
    "logs": {
        "rows": {"documents": 2, "judgements": 2},
        "grades": {"0.0": 1, "1.0": 1},
        "unknown_documents": {"judgements": 1},
    },
    "labels": {
        "rows": 3,
        "queries": 2,
        "levels": {"3 SHOWN_NOT_CLICKED": 1, "4 POSITIVE": 1, "5 QUERY_LEVEL_POSITIVE": 1},
    },
    "records": {},
    "run": {"best_step": 5, "logged_steps": 2, "torn_last_line": True},
    "embeddings": {"rows": 3, "dim": 2, "shards": 2, "distinct_ids": 3},
    "evaluation": {"rows": {"per_query.parquet": 2}, "metrics": {"recall": 0.5}},
    "encoder": {"dim": 30},
    "work": {"steps": ["hold out"]},
    "comparison": {"cells": {"nce-hashed-0": {"ndcg@4": 2}}},
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_is_described(tmp_path, kind):
    content = describe(MAKERS[kind](tmp_path / kind))
    json.dumps(content, default=str)
    assert content["kind"] == kind
    assert {name: content[name] for name in EXPECTED[kind]} == EXPECTED[kind]
    if kind == "records":
        train, dev = content["splits"]["train"], content["splits"]["dev"]
        assert (train["records"], train["documents_with_text"], train["labels"], dev["records"]) == (3, 3, 6, 1)
        assert train["levels"]["4 POSITIVE"] == 3
        assert train["samples"][0]["query"] == "red shoe"
    if kind == "run":
        assert content["checkpoints"] == {
            step: {"parameters": 7, "best": {"step": 5, "metric": 0.5}} for step in ("5", "10")
        }
    if kind == "logs":
        assert content["discriminator"]["samples"][0]["theta"] > 0
    if kind == "work":
        assert [Path(child["path"]).name for child in content["directories"]] == ["labels", "split"]


def break_logs(path):
    write_table(path, "judgements", pa.table({"query": ["a"], "doc_id": ["d1"], "grade": [-1]}))


def break_labels_level(path):
    table = pq.read_table(path / "labels.parquet")
    pq.write_table(table.set_column(2, "level", pa.array([5, 6, 4])), path / "labels.parquet")


def break_labels_key(path):
    table = pq.read_table(path / "labels.parquet")
    pq.write_table(pa.concat_tables([table, table[:1]]), path / "labels.parquet")


def break_labels_evidence(path):
    table = pq.read_table(path / "labels.parquet")
    pq.write_table(table.set_column(5, "evidence", pa.array(["[]", "[]", "{"])), path / "labels.parquet")


def flip(pattern, place=-1):
    def broken(path):
        file = sorted(path.rglob(pattern))[-1]
        content = bytearray(file.read_bytes())
        content[place] ^= 0xFF
        file.write_bytes(content)

    return broken


def replace_text(name, old, new):
    return lambda path: (path / name).write_text((path / name).read_text().replace(old, new))


def remove(pattern):
    return lambda path: sorted(path.rglob(pattern))[-1].unlink()


def damage_checkpoint(path):
    for file in (path / "checkpoints" / "10" / "parameters").rglob("*"):
        if file.is_file() and file.stat().st_size:
            file.write_bytes(b"\0" * file.stat().st_size)


BROKEN = {
    "negative grade": ("logs", break_logs, r"table judgements, column grade: .*row 0"),
    "discriminator": ("logs", remove("corpus.npz"), "not a readable discriminator"),
    "level 6": ("labels", break_labels_level, r"table labels, column level: .*row 1 .*\"6\" is no level"),
    "repeated pair": ("labels", break_labels_key, r"table labels, column query and doc_id: .*row 3 .*repeats the key"),
    "evidence": ("labels", break_labels_evidence, r"table labels, column evidence: .*row 2 .*not JSON"),
    "labels gone": ("labels", remove("labels.parquet"), "neither labels.parquet nor a folder labels"),
    "record": ("records", flip("*train.tfrecord-00001-of-00002"), r"train\.tfrecord-00001-of-00002"),
    "shard": ("records", remove("*train.tfrecord-00001-of-00002"), r"train\.tfrecord-00001-of-00002"),
    "metrics": ("run", replace_text("metrics.jsonl", "2.0}", "2.0"), r"metrics\.jsonl, line 1: not a JSON object"),
    "step": ("run", replace_text("metrics.jsonl", "step", "stop"), r"metrics\.jsonl, line 1: no step"),
    "config": ("run", replace_text("config.json", "}", ""), r"config\.json: not JSON"),
    "checkpoint": ("run", damage_checkpoint, r"checkpoints/10/parameters"),
    "vectors": ("embeddings", flip("embeddings-00001*"), r"embeddings-00001-of-00002\.npy"),
    "ids": ("embeddings", remove("ids-00000*"), r"ids-00000-of-00002\.parquet"),
    "per query": ("evaluation", flip("per_query.parquet"), r"per_query\.parquet, after row 0: cannot be read"),
    "metrics of evaluation": ("evaluation", replace_text("metrics.json", "}", ""), r"metrics\.json: not JSON"),
    "same form, other content": ("evaluation", replace_text("metrics.json", "0.5", "0.9"), "a file was changed"),
    "weights": ("encoder", flip("model.safetensors", 4), r"safetensors"),
    "result of a cell": ("comparison", replace_text("results/nce-hashed-0.json", "}}", "}"), "not JSON"),
    "values of a cell": ("comparison", replace_text("results/nce-hashed-0.json", "[0.5, 1.0]", "1"), "must be a list"),
    "what cells read": ("comparison", remove("labels.parquet"), "neither labels.parquet nor a folder labels"),
    "inside the work": ("work", remove("labels.parquet"), "neither labels.parquet nor a folder labels"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_named(tmp_path, case):
    kind, broken, message = BROKEN[case]
    path = MAKERS[kind](tmp_path / kind)
    broken(path)
    with pytest.raises(InputError, match=message):
        describe(path)


def test_a_directory_without_a_manifest_is_taken_for_log_tables(tmp_path):
    make_logs(tmp_path / "logs")
    (tmp_path / "logs" / "manifest.json").unlink()
    (tmp_path / "logs" / "notes.txt").write_text("")
    content = describe(tmp_path / "logs")
    assert (content["kind"], content["program"], content["not_log_tables"]) == ("logs", None, ["notes.txt"])
    (tmp_path / "logs" / "documents.parquet").unlink()
    with pytest.raises(InputError, match=r"has no manifest\.json, so it was read as log tables"):
        describe(tmp_path / "logs")


def test_an_unknown_kind_is_refused(tmp_path):
    signed(tmp_path, "weather")
    with pytest.raises(InputError, match="kind 'weather' is not one of"):
        describe(tmp_path)


def test_exit_statuses_and_the_outcome_line(tmp_path):
    def run(path):
        command = [sys.executable, "-m", "data.inspect", str(path)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    labels = make_labels(tmp_path / "labels")
    done = run(labels)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["levels"]["4 POSITIVE"] == 1
    assert "4 POSITIVE: 1" in done.stderr
    (labels / "labels.parquet").write_bytes((labels / "labels.parquet").read_bytes()[:100])
    done = run(labels)
    assert (done.returncode, done.stdout) == (2, "")
    assert "labels.parquet is not a Parquet file or is cut off" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_relative_path_is_described_as_an_absolute_one(tmp_path, monkeypatch, kind):
    made = MAKERS[kind](tmp_path / kind)
    monkeypatch.chdir(tmp_path)
    relative, absolute = (json.dumps(describe(path), default=str) for path in (Path(kind), made))
    assert relative == absolute.replace(str(made), kind)
