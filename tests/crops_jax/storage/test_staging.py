"""Programs whose paths lie in a bucket end as with local paths."""

import dataclasses
import datetime
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax import artifacts, program
from crops_jax.artifacts import in_place
from crops_jax.errors import InputError
from crops_jax.storage import InputPath, OutputPath, ResumedPath, claims
from crops_jax.storage.inputs import cache_folder, local_copy
from crops_jax.storage.objects.store import ObjectStore
from data.mine import mine
from data.tables import SCHEMAS, write_table
from data.write_records import write_records
from launch.embed import embed
from launch.evaluate import evaluate
from launch.export import export
from launch.report import report
from tests.model_folders import write_bert


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    logs: InputPath
    output: OutputPath
    overwrite: bool = False
    tokenizer: InputPath | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResumedArguments:
    output: ResumedPath
    until: int
    overwrite: bool = False


def count(arguments: Arguments) -> dict:
    """Counts the bytes of the logs."""
    with artifacts.output_directory(
        arguments.output,
        overwrite=arguments.overwrite,
        program="count",
        kind="labels",
        arguments=arguments,
        inputs={"logs": arguments.logs},
    ) as out:
        files = [file for file in Path(arguments.logs).rglob("*") if file.is_file()]
        total = sum(file.stat().st_size for file in files)
        if not total:
            raise InputError(f"{arguments.logs}: nothing to count")
        (out / "count").write_text(str(total))
    return {"output": arguments.output, "logs": [arguments.logs], "total": total}


def resume(arguments: ResumedArguments) -> dict:
    """Writes files up to a number, unless they are there."""
    output = Path(arguments.output)
    manifest = artifacts.new_manifest(program="resume", kind="embeddings", arguments={}, inputs={})
    in_place.claim(output, manifest, overwrite=arguments.overwrite, inputs={}, remedy="choose another")
    made = [number for number in range(arguments.until) if not (output / str(number)).exists()]
    for number in made:
        (output / str(number)).write_text(str(number))
        if number == 2:
            raise InputError("stopped")
    return {"made": made}


def small_logs(folder: Path) -> Path:
    """Writes log tables of ten searches, each with a click, and returns their folder."""
    time = datetime.datetime(2024, 5, 31, tzinfo=datetime.UTC)
    tables = {
        "documents": [{"doc_id": f"d{i}", "title": f"title {i}"} for i in range(20)],
        "searches": [
            {"search_id": f"s{i}", "user_id": f"u{i}", "query": f"query {i}", "time": time} for i in range(10)
        ],
        "candidates": [
            {"search_id": f"s{i}", "doc_id": f"d{j}", "stage": "shown", "clicked": i == j}
            for i in range(10)
            for j in (i, i + 10)
        ],
    }
    folder.mkdir()
    for name, rows in tables.items():
        schema = pa.schema([(column.name, column.arrow_type) for column in SCHEMAS[name].columns])
        write_table(folder, name, pa.Table.from_pylist(rows, schema))
    return folder


def call(function, capfd, *arguments: str) -> tuple[int, dict, str]:
    with pytest.raises(SystemExit) as ended:
        program.run(function, example="", arguments=arguments)
    out, err = capfd.readouterr()
    return ended.value.code, json.loads(out) if out else {}, err


@pytest.fixture
def logs(s3):
    ObjectStore("s3://bucket/logs").write("documents.parquet", b"12345")
    return "s3://bucket/logs"


def test_a_program_reads_and_writes_a_bucket_and_names_the_paths_of_the_user(logs, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, outcome, _ = call(count, capfd, "--logs", logs, "--output", "s3://bucket/out/a/", "--tokenizer", logs)
    assert (status, outcome) == (0, {"output": "s3://bucket/out/a", "logs": [logs], "total": 5})
    assert set(ObjectStore("s3://bucket/out/a").listing()) == {"_COMMITTED", "manifest.json", "count"}
    manifest = artifacts.read_manifest(local_copy("s3://bucket/out/a"))
    assert manifest["arguments"] == {"tokenizer": logs}
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert not [path for path in (cache_folder() / "outputs").rglob("*") if path.is_file() and path.name != ".lock"]


def test_an_output_that_exists_is_refused_or_replaced_as_a_local_one(logs, capfd):
    output = ("--logs", logs, "--output", "s3://bucket/a")
    assert call(count, capfd, *output)[0] == 0
    status, _, err = call(count, capfd, *output)
    assert (status, err) == (
        2,
        "error: s3://bucket/a exists; add --overwrite to replace it, or choose another output\n",
    )
    ObjectStore(logs).write("documents.parquet", b"123")
    assert call(count, capfd, *output, "--overwrite")[1]["total"] == 3
    assert (local_copy("s3://bucket/a") / "count").read_text() == "3"


def test_what_lies_beside_an_output_stays_when_the_program_does_not_write_it(logs, capfd):
    """The rows that an earlier call set aside, and files of others with that name."""
    aside, notes = ObjectStore("s3://bucket/a.quarantine"), ObjectStore("s3://bucket/b.quarantine")
    manifest = artifacts.new_manifest(program="data.tables", kind="quarantine", arguments={}, inputs={})
    for name, content in [("candidates.parquet", b"rows"), ("manifest.json", json.dumps(manifest).encode())]:
        aside.write(name, content)
    notes.write("notes.txt", b"mine")
    before = aside.listing(), notes.listing()
    for name in ("a", "b"):
        assert call(count, capfd, "--logs", logs, "--output", f"s3://bucket/{name}")[0] == 0
    assert (aside.listing(), notes.listing()) == before
    assert notes.read("notes.txt") == b"mine"


def test_what_a_program_removes_beside_its_output_is_removed_from_the_bucket(logs, capfd):
    """The rows that an earlier call set aside may hold ids of users. A call that sets none aside removes them."""
    aside = ObjectStore("s3://bucket/a.quarantine")
    manifest = artifacts.new_manifest(program="data.tables", kind="quarantine", arguments={}, inputs={})
    for name, content in [("candidates.parquet", b"rows"), ("manifest.json", json.dumps(manifest).encode())]:
        aside.write(name, content)

    def count_and_tidy(arguments: Arguments) -> dict:
        """Counts, and removes the rows of an earlier call."""
        shutil.rmtree(arguments.output + ".quarantine")
        return count(arguments)

    assert call(count_and_tidy, capfd, "--logs", logs, "--output", "s3://bucket/a")[0] == 0
    assert aside.listing() == {}


@pytest.mark.parametrize("damaged", ["_COMMITTED", "count"])
def test_a_damaged_output_can_be_written_again(damaged, logs, capfd):
    """The message about the damage says so."""
    arguments = ("--logs", logs, "--output", "s3://bucket/a", "--overwrite")
    assert call(count, capfd, *arguments)[0] == 0
    ObjectStore("s3://bucket/a").write(damaged, b"{}")
    with pytest.raises(InputError, match=r"write .* again"):
        local_copy("s3://bucket/a")
    assert call(count, capfd, *arguments)[0] == 0
    assert (local_copy("s3://bucket/a") / "count").read_text() == "5"


@pytest.mark.parametrize("damaged", ["_COMMITTED", "1"])
def test_a_damaged_output_of_a_program_that_resumes_can_be_written_again(damaged, s3, capfd):
    arguments = ("--output", "s3://bucket/a", "--until", "2")
    assert call(resume, capfd, *arguments)[:2] == (0, {"made": [0, 1]})
    ObjectStore("s3://bucket/a").write(damaged, b"{}")
    status, _, err = call(resume, capfd, *arguments)
    assert status == 2
    assert "again" in err
    assert call(resume, capfd, *arguments, "--overwrite")[:2] == (0, {"made": [0, 1]})
    assert call(resume, capfd, *arguments)[:2] == (0, {"made": []})


def test_files_of_others_are_never_replaced(logs, capfd):
    ObjectStore("s3://bucket/mine").write("thesis.tex", b"1")
    status, _, err = call(count, capfd, "--logs", logs, "--output", "s3://bucket/mine", "--overwrite")
    assert status == 2
    assert "s3://bucket/mine holds files that no program of crops_jax wrote" in err
    assert list(ObjectStore("s3://bucket/mine").listing()) == ["thesis.tex"]


@pytest.mark.parametrize("claim", [b"{}", b'{"host": "elsewhere", "process": 7}'])
def test_a_run_is_never_replaced(claim, logs, capfd, monkeypatch):
    monkeypatch.setattr(claims, "STALE_SECONDS", -1.0)
    store, manifest = ObjectStore("s3://bucket/run"), {"program": "launch.train", "kind": "run", "arguments": {}}
    store.write("manifest.json", json.dumps(artifacts.new_manifest(**manifest, inputs={})).encode())
    for name, text in [("_RUN", b"{}"), ("_CLAIM-000001", claim), ("checkpoints/1/x", b"1")]:
        store.write(name, text)
    before = store.listing()
    for overwrite in ([], ["--overwrite"]):
        status, _, err = call(count, capfd, "--logs", logs, "--output", "s3://bucket/run", *overwrite)
        assert status == 2
        assert "s3://bucket/run exists" in err or "its kind is run, not labels, so it is not replaced" in err
    assert store.listing() == before


def test_a_program_that_fails_publishes_nothing_and_names_the_path_of_the_user(s3, capfd):
    ObjectStore("s3://bucket/logs").write("documents.parquet", b"")
    status, _, err = call(count, capfd, "--logs", "s3://bucket/logs", "--output", "s3://bucket/a")
    assert (status, err) == (2, "error: s3://bucket/logs: nothing to count\n")
    assert ObjectStore("s3://bucket/a").listing() == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--logs", "s3://bucket/logs", "--output", "s3://bucket/logs/x"), "--output s3://bucket/logs/x and --logs"),
        (("--logs", "s3://bucket/logs/x", "--output", "s3://bucket/logs/"), "overlap; choose another output"),
        (("--logs", "s3://bucket/logs", "--output", "s3://bucket"), "--output s3://bucket is a whole bucket"),
        (("--logs", "s3://bucket/none", "--output", "s3://bucket/a"), "s3://bucket/none: no such file or folder"),
        (("--logs", "s3://bucket/logs", "--output", "s3://nowhere/a"), "there is no bucket nowhere"),
        (("--logs", "s3://bucket/logs", "--output", "s3:///a"), "give one of these"),
    ],
)
def test_wrong_paths_are_status_2(arguments, words, logs, capfd):
    status, _, err = call(count, capfd, *arguments)
    assert status == 2
    assert words in err


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        ("s3://bucket/cache", "CROPS_CACHE s3://bucket/cache: local copies cannot lie behind a scheme"),
        ("FILE", "cannot hold local copies (Not a directory)"),
        ("/proc/cache", "/proc/cache cannot hold local copies ("),
        (None, "there is no folder for local copies (Could not determine home directory.)"),
    ],
)
def test_a_folder_of_copies_that_cannot_be_is_status_2_and_says_what_to_set(
    cache, words, logs, capfd, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    without_home(monkeypatch)
    monkeypatch.setenv("CROPS_CACHE", str(tmp_path / "file") if cache == "FILE" else cache or "")
    status, _, err = call(count, capfd, "--logs", logs, "--output", "s3://bucket/a")
    assert status == 2
    assert words in err
    assert "set CROPS_CACHE to a local folder" in err
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_folder_of_copies_can_lie_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CROPS_CACHE", "~/copies")
    assert cache_folder("inputs") == tmp_path / "home" / "copies" / "inputs"
    assert [file.name for file in tmp_path.iterdir()] == ["home"]


def test_a_user_without_a_home_needs_only_a_folder_of_copies(logs, capfd, monkeypatch):
    """Kubernetes runs containers under numbers that no list of users has."""
    without_home(monkeypatch)
    assert call(count, capfd, "--logs", logs, "--output", "s3://bucket/a")[0] == 0


def without_home(monkeypatch) -> None:
    """Makes this process look like one of a user who is in no list of users."""
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def unknown(user) -> None:
        raise KeyError(user)

    monkeypatch.setattr("pwd.getpwuid", unknown)


def test_a_server_that_stays_down_is_status_4(logs, capfd, s3):
    s3.faults("unavailable", method="PUT", times=1000)
    status, _, err = call(count, capfd, "--logs", logs, "--output", "s3://bucket/a")
    assert status == 4
    assert "s3://bucket/a: 4 attempts failed" in err


def test_several_processes_are_refused_one_output_in_a_bucket(logs, capfd, monkeypatch):
    for name, value in {"NUM_PROCESSES": "2", "PROCESS_ID": "0", "COORDINATOR_ADDRESS": "127.0.0.1:1"}.items():
        monkeypatch.setenv(f"JAX_{name}", value)
    status, _, err = call(count, capfd, "--logs", logs, "--output", "s3://bucket/a")
    assert status == 2
    assert "several processes write one output on a file system that all of them see" in err


def test_a_program_that_resumes_goes_on_where_it_stopped_and_does_nothing_twice(s3, capfd):
    output = ("--output", "s3://bucket/vectors")
    assert call(resume, capfd, *output, "--until", "4")[0] == 2
    assert call(resume, capfd, *output, "--until", "4")[1] == {"made": [3]}
    published = ObjectStore("s3://bucket/vectors").listing()
    s3.requests.clear()
    assert call(resume, capfd, *output, "--until", "4")[1] == {"made": []}
    assert ObjectStore("s3://bucket/vectors").listing() == published
    assert {method for method, _ in s3.requests} <= {"GET", "HEAD"}


@pytest.mark.slow
def test_real_programs_write_the_same_in_a_bucket_as_on_a_disk(s3, capfd, tmp_path):
    local = small_logs(tmp_path / "logs")
    store = ObjectStore("s3://bucket/logs")
    for file in local.iterdir():
        store.upload(file.name, file)
    mined, vocabulary = ("--perspectives", "search_log"), ("--vocabulary-size", "200", "--workers", "1")
    for place in (str(tmp_path), "s3://bucket"):
        places = ("--logs", f"{place}/logs")
        status, _, err = call(mine, capfd, *places, *mined, "--output", f"{place}/labels")
        assert status == 0, err
        labelled = ("--labels", f"{place}/labels", *places, "--output", f"{place}/records")
        status, outcome, err = call(write_records, capfd, *labelled, *vocabulary)
        assert status == 0, err
        assert outcome["records"] == f"{place}/records"
    copy = local_copy("s3://bucket/records")
    assert artifacts.content_fingerprint(copy) == artifacts.content_fingerprint(tmp_path / "records")
    assert artifacts.read_manifest(copy) == artifacts.read_manifest(tmp_path / "records")
    table = pq.read_table(local_copy("s3://bucket/labels/labels.parquet"))
    assert table.equals(pq.read_table(tmp_path / "labels" / "labels.parquet"))


def test_arguments_without_buckets_open_nothing(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("CROPS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "file").write_text("1")
    assert call(count, capfd, "--logs", str(tmp_path / "logs"), "--output", str(tmp_path / "out"))[0] == 0
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_a_model_folder_is_exported_embedded_and_evaluated_in_a_bucket(s3, capfd, tmp_path):
    logs = small_logs(tmp_path / "logs")
    judged = [{"query": f"title {i}", "doc_id": f"d{i}", "grade": 1.0, "split": "test"} for i in range(5)]
    write_table(logs, "judgements", pa.Table.from_pylist(judged))
    for folder in (write_bert(tmp_path / "bert", layers=1), logs):
        store = ObjectStore(f"s3://bucket/{folder.name}")
        for file in folder.rglob("*"):
            if file.is_file():
                store.upload(file.relative_to(folder).as_posix(), file)

    def done(function, *arguments: str) -> dict:
        status, outcome, err = call(function, capfd, *arguments)
        assert status == 0, err
        return outcome

    done(export, "--run", "s3://bucket/bert", "--output", "s3://bucket/exported")
    run = ("--run", "s3://bucket/exported")
    embedding = (*run, "--texts", "s3://bucket/logs", "--tower", "document", "--output", "s3://bucket/vectors")
    assert done(embed, *embedding, "--shard-size", "8")["shards_written"] == 3
    assert done(embed, *embedding, "--shard-size", "8")["shards_written"] == 0
    vectors = ("--document-embeddings", "s3://bucket/vectors")
    evaluation = (*run, "--logs", "s3://bucket/logs", *vectors, "--output", "s3://bucket/evaluation")
    outcome = done(evaluate, *evaluation, "--bootstrap-samples", "100")
    assert outcome["output"] == "s3://bucket/evaluation"
    assert "_COMMITTED" in ObjectStore("s3://bucket/evaluation").listing()
    page = ("s3://bucket/evaluation", "--output", "s3://bucket/pages/report.html")
    assert done(report, *page)["report"] == "s3://bucket/pages/report.html"
    assert b"exported" in ObjectStore("s3://bucket/pages/report.html").read("")
    status, _, err = call(report, capfd, *page)
    assert status == 2
    assert "s3://bucket/pages/report.html exists; add --overwrite" in err
    done(report, *page, "--overwrite")
