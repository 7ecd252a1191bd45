import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax import artifacts
from crops_jax.embeddings import iterate, open_embeddings
from crops_jax.embeddings.encoder import Encoder
from crops_jax.errors import InputError, Interrupted, NamedFailure
from crops_jax.runs.encoder import open_encoder
from launch.embed import EmbedArguments, embed
from tests.model_folders import TEXTS, write_bert
from tests.paths import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("model") / "bert", layers=1)


def write(path, columns, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def arguments(folder, texts, output, **given):
    return EmbedArguments(
        **({"run": str(folder), "texts": str(texts), "output": str(output), "tower": "document"} | given)
    )


def files_of(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.fixture
def texts(tmp_path):
    columns = {"id": [f"t{i}" for i in range(10)], "text": TEXTS}
    return write(tmp_path / "texts.parquet", columns, row_group_size=3)


def test_vectors_and_ids_come_back_in_order(folder, texts, tmp_path):
    outcome = embed(arguments(folder, texts, tmp_path / "out", shard_size=4))
    assert outcome["rows"] == 10
    assert outcome["dim"] == 30
    assert (outcome["shards"], outcome["shards_written"]) == (3, 3)
    assert (tmp_path / "out" / "embeddings-00000-of-00003.npy").is_file()
    found = open_embeddings(tmp_path / "out")
    assert found.ids == [f"t{i}" for i in range(10)]
    assert [shard.shape for shard in found.shards] == [(4, 30), (4, 30), (2, 30)]
    assert all(isinstance(shard, np.memmap) and shard.dtype == np.float32 for shard in found.shards)
    expected = open_encoder(folder).encode([" ".join(text.split()) for text in TEXTS], tower="document")
    np.testing.assert_allclose(found.array(), expected, atol=1e-5)
    assert [len(ids) for ids, _ in iterate(found)] == [4, 4, 2]


@pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 0.9999), ("int8", 0.999)])
def test_vectors_of_fewer_components_in_fewer_bytes(folder, texts, tmp_path, dtype, least):
    outcome = embed(arguments(folder, texts, tmp_path / "out", shard_size=4, dim=20, dtype=dtype))
    assert (outcome["dim"], outcome["dtype"]) == (20, dtype)
    found = open_embeddings(tmp_path / "out")
    assert found.dtype == dtype
    expected = open_encoder(folder).encode([" ".join(text.split()) for text in TEXTS], tower="document", dim=20)
    assert ((found.array() * expected).sum(axis=1) / np.linalg.norm(found.array(), axis=1)).min() >= least
    assert embed(arguments(folder, texts, tmp_path / "out", shard_size=4, dim=20, dtype=dtype))["shards_written"] == 0
    with pytest.raises(InputError, match="layout"):
        embed(arguments(folder, texts, tmp_path / "out", shard_size=4, dim=20))
    with pytest.raises(InputError, match="1 to 30 components, found dim 31"):
        embed(arguments(folder, texts, tmp_path / "out", dim=31))


def test_queries_are_normalised(folder, tmp_path):
    texts = write(tmp_path / "queries.parquet", {"id": [1, 2], "text": ["  RED  Lamp ", "red lamp"]})
    embed(arguments(folder, texts, tmp_path / "out", tower="query"))
    found = open_embeddings(tmp_path / "out")
    assert found.ids == ["1", "2"]
    np.testing.assert_allclose(found.array()[0], found.array()[1], atol=1e-6)


def test_documents_of_log_tables_in_one_file_or_many(folder, tmp_path):
    columns = {
        "doc_id": ["a", "b", "c"],
        "title": ["red", "blue", "lamp"],
        "text": ["shoe", None, ""],
        "keywords": [None, "hose", None],
        "published_at": pa.array([None] * 3, pa.timestamp("us", tz="UTC")),
    }
    write(tmp_path / "logs" / "documents.parquet", columns)
    embed(arguments(folder, tmp_path / "logs", tmp_path / "out"))
    whole = open_embeddings(tmp_path / "out")
    assert whole.ids == ["a", "b", "c"]
    expected = open_encoder(folder).encode(["red shoe", "blue hose", "lamp"], tower="document")
    np.testing.assert_allclose(whole.array(), expected, atol=1e-5)

    table = pa.table(columns)
    for i in range(3):
        write(tmp_path / "many" / "documents" / f"{i}.parquet", table.slice(i, 1).to_pydict() | {"text": ["x"]})
    embed(arguments(folder, tmp_path / "many", tmp_path / "out2", shard_size=2))
    assert open_embeddings(tmp_path / "out2").ids == ["a", "b", "c"]


def test_the_distinct_queries_of_labels_are_embedded_under_their_own_names(folder, tmp_path):
    queries = ["red shoe", "BLUE  lamp", "a", "red shoe"]
    columns = {
        "query": queries,
        "doc_id": ["d0", "d1", "d1", "d2"],
        "level": [4, 4, 3, 2],
        "source": ["search_log"] * 4,
    }
    labels = write(tmp_path / "labels" / "labels.parquet", columns).parent
    embed(arguments(folder, labels, tmp_path / "out", tower="query", shard_size=2))
    found = open_embeddings(tmp_path / "out")
    assert found.ids == ["a", "blue lamp", "red shoe"]
    expected = open_encoder(folder).encode(found.ids, tower="query")
    np.testing.assert_allclose(found.array(), expected, atol=1e-5)

    table = pa.table(columns)
    for i in range(4):
        pq.write_table(table.slice(i, 1), write(tmp_path / "many" / "labels" / f"{i}.parquet", {"query": [""]}))
    embed(arguments(folder, tmp_path / "many", tmp_path / "out2", tower="query", shard_size=2))
    assert open_embeddings(tmp_path / "out2").ids == found.ids

    manifest = artifacts.new_manifest(program="data.mine", kind="labels", arguments={}, inputs={}, content="mined")
    artifacts.write_manifest(labels, manifest)
    with pytest.raises(InputError, match="--texts has changed"):
        embed(arguments(folder, labels, tmp_path / "out", tower="query", shard_size=2))
    embed(arguments(folder, labels, tmp_path / "out3", tower="query"))
    assert artifacts.read_manifest(tmp_path / "out3")["inputs"]["texts"]["fingerprint"] == "mined"


def test_labels_are_not_embedded_as_documents_nor_unread(folder, tmp_path):
    columns = {"query": ["a", "a"], "doc_id": ["d0", "d0"], "level": [4, 3], "source": ["search_log"] * 2}
    labels = write(tmp_path / "labels" / "labels.parquet", columns).parent
    with pytest.raises(InputError, match="--tower query takes it"):
        embed(arguments(folder, labels, tmp_path / "out"))
    with pytest.raises(InputError, match="repeats the key"):
        embed(arguments(folder, labels, tmp_path / "out", tower="query"))


def test_a_finished_directory_is_left_as_it_is(folder, texts, tmp_path):
    wanted = arguments(folder, texts, tmp_path / "out", shard_size=4)
    embed(wanted)
    before = files_of(tmp_path / "out")
    assert embed(wanted)["shards_written"] == 0
    assert files_of(tmp_path / "out") == before
    # How fast is not what.
    assert embed(arguments(folder, texts, tmp_path / "out", shard_size=4, batch_tokens=64))["shards_written"] == 0


@pytest.mark.parametrize("damage", ["cut", "flip", "lost ids", "lost vectors", "other ids"])
def test_a_torn_shard_is_made_again(folder, texts, tmp_path, damage):
    out = tmp_path / "out"
    wanted = arguments(folder, texts, out, shard_size=4)
    embed(wanted)
    before = files_of(out)
    vectors, ids = out / "embeddings-00001-of-00003.npy", out / "ids-00001-of-00003.parquet"
    if damage == "cut":
        with open(vectors, "rb+") as file:
            file.truncate(vectors.stat().st_size - 3)
        with pytest.raises(InputError, match=r"shard 1 is damaged|embeddings-00001"):
            open_embeddings(out)
    elif damage == "flip":
        content = bytearray(vectors.read_bytes())
        content[-2] ^= 1
        vectors.write_bytes(content)
    elif damage == "other ids":
        (out / "ids-00000-of-00003.parquet").replace(ids)
    else:
        (ids if damage == "lost ids" else vectors).unlink()
        with pytest.raises(InputError, match="is not finished"):
            open_embeddings(out)
    (out / ".embeddings-00001-of-00003.npy.7.tmp").write_bytes(b"torn")
    assert embed(wanted)["shards_written"] == (2 if damage == "other ids" else 1)
    assert files_of(out) == before


def test_an_interrupted_run_goes_on_with_the_next_shard(folder, texts, tmp_path, monkeypatch):
    wanted = arguments(folder, texts, tmp_path / "out", shard_size=3)
    embed(wanted)
    expected = files_of(tmp_path / "out")
    encode, calls = Encoder.encode, []

    def interrupted(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise Interrupted
        return encode(self, *args, **kwargs)

    embed(arguments(folder, texts, tmp_path / "out", shard_size=3))
    other = arguments(folder, texts, tmp_path / "again", shard_size=3)
    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "encode", interrupted)
        with pytest.raises(Interrupted):
            embed(other)
    assert artifacts.read_manifest(tmp_path / "again")["kind"] == "embeddings"
    with pytest.raises(InputError, match=r"ids-00002-of-00004.parquet|embeddings-00002-of-00004.npy"):
        open_embeddings(tmp_path / "again")
    assert embed(other)["shards_written"] == 2
    assert files_of(tmp_path / "again") == expected


def test_a_foreign_directory_is_refused_and_overwritten_only_when_asked(folder, texts, tmp_path):
    out = tmp_path / "out"
    embed(arguments(folder, texts, out))
    with pytest.raises(InputError, match="--tower document, now query"):
        embed(arguments(folder, texts, out, tower="query"))
    with pytest.raises(InputError, match="layout"):
        embed(arguments(folder, texts, out, shard_size=3))
    other = write_bert(tmp_path / "other", layers=1, seed=1)
    with pytest.raises(InputError, match=r"encoder .*add --overwrite"):
        embed(arguments(other, texts, out))
    write(texts, {"id": [f"t{i}" for i in range(10)], "text": TEXTS[::-1]})
    with pytest.raises(InputError, match="--texts has changed"):
        embed(arguments(folder, texts, out))
    embed(arguments(other, texts, out, shard_size=5, overwrite=True))
    assert len(open_embeddings(out).shards) == 2

    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "notes.txt").write_text("keep")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="theirs"):
            embed(arguments(folder, texts, tmp_path / "theirs", overwrite=overwrite))
    with pytest.raises(InputError, match="overlap"):
        embed(arguments(folder, texts, folder))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a", "b", "a"], "text": ["x"] * 3}, "row 2: id 'a' occurs twice"),
        ({"id": ["a", None], "text": ["x"] * 2}, "row 1: id is null"),
        ({"id": ["a", "b"], "text": ["x", None]}, "row 1: text is null"),
        ({"id": ["a"], "body": ["x"]}, "columns id, body; expected id and text"),
        ({"doc_id": ["a"], "text": ["x"]}, "column title is missing"),
        ({"id": ["a"], "text": [1]}, "column text must be text, found int64"),
        ({"id": [1.5], "text": ["x"]}, "column id must be text, found double"),
        ({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())}, "has no rows"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(folder, tmp_path, columns, message):
    texts = write(tmp_path / "texts.parquet", columns)
    with pytest.raises(InputError, match=message):
        embed(arguments(folder, texts, tmp_path / "out"))


def test_files_that_are_no_table_are_named(folder, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        embed(arguments(folder, tmp_path / "nowhere", tmp_path / "out"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no Parquet files"):
        embed(arguments(folder, tmp_path / "empty", tmp_path / "out"))
    (tmp_path / "texts.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(InputError, match="not a Parquet file"):
        embed(arguments(folder, tmp_path / "texts.parquet", tmp_path / "out"))
    write(tmp_path / "documents.parquet", {"doc_id": ["a"], "title": ["x"]})
    with pytest.raises(InputError, match="--tower query takes a table of id and text"):
        embed(arguments(folder, tmp_path / "documents.parquet", tmp_path / "out", tower="query"))
    with pytest.raises(InputError, match="--shard-size must be positive"):
        embed(arguments(folder, tmp_path / "documents.parquet", tmp_path / "out", shard_size=0))


def test_vectors_that_are_not_finite_are_not_written(folder, texts, tmp_path, monkeypatch):
    def run(self, batch, tower, dim):
        return np.full((len(batch.texts), dim), np.nan, np.float32)

    monkeypatch.setattr(Encoder, "_run", run)
    with pytest.raises(NamedFailure, match=r"the vector of the text '.*' is not finite, so"):
        embed(arguments(folder, texts, tmp_path / "out"))
    with pytest.raises(InputError, match="is not finished"):
        open_embeddings(tmp_path / "out")


def test_other_directories_are_not_embeddings(tmp_path):
    with pytest.raises(InputError, match="no such directory"):
        open_embeddings(tmp_path / "nowhere")
    artifacts.write_manifest(tmp_path, artifacts.new_manifest(program="x", kind="labels", arguments={}, inputs={}))
    with pytest.raises(InputError, match="holds labels, not embeddings"):
        open_embeddings(tmp_path)


@pytest.mark.slow
def test_a_terminated_process_exits_with_3_and_is_finished_by_the_next(folder, tmp_path):
    texts = write(tmp_path / "texts.parquet", {"id": [str(i) for i in range(3000)], "text": TEXTS * 300})
    command = [sys.executable, "-m", "launch.embed", "--run", str(folder), "--texts", str(texts)]
    command += ["--tower", "document", "--output", str(tmp_path / "out"), "--shard-size", "20"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    first = tmp_path / "out" / "ids-00000-of-00150.parquet"
    while process.poll() is None and not first.exists():
        os.sched_yield()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 3
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
    outcome = json.loads(finished.stdout.splitlines()[-1])
    assert 0 < outcome["shards_written"] < 150
    assert len(open_embeddings(tmp_path / "out").ids) == 3000
