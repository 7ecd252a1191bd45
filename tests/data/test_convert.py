"""data.convert through the command line: exit statuses, the outcome line, and what is left behind."""

import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax import artifacts
from crops_jax.errors import InputError
from data.convert import ConvertArguments, convert
from data.tables import open_logs
from tests.paths import ROOT


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, columns in {
        "corpus": {"doc_id": ["1", "2", "2"], "title": ["Angle", "Deck", "Deck"], "text": [""] * 3},
        "queries": {"query_id": ["q0"], "text": ["L  Bracket"]},
        "judgements": {"query_id": ["q0"] * 2, "doc_id": ["1", "2"], "grade": [2.33, 3.0], "split": ["dev", "test"]},
    }.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def run(*arguments):
    command = [sys.executable, "-m", "data.convert", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_outcome_is_the_last_line_of_standard_output(tmp_path, raw):
    done = run("--source", "homedepot", "--input", raw, "--output", tmp_path / "logs")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "output": str(tmp_path / "logs"),
        "source": "homedepot",
        "tables": {"documents": 2, "judgements": 2},
        "dropped": {"documents": {"repeated doc_id": 1}},
    }
    assert "documents: 2 rows; 1 rows dropped (repeated doc_id)" in done.stderr
    manifest = artifacts.read_manifest(tmp_path / "logs")
    assert (manifest["program"], manifest["kind"]) == ("data.convert", "logs")
    assert manifest["inputs"]["input"]["fingerprint"] == artifacts.fingerprint(raw)


def test_a_wrong_input_ends_with_status_2_one_message_and_nothing_written(tmp_path, raw):
    (raw / "queries.parquet").unlink()
    done = run("--source", "homedepot", "--input", raw, "--output", tmp_path / "logs")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "queries.parquet" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["raw"]


def test_same_input_gives_the_same_bytes_and_nothing_is_overwritten_unasked(tmp_path, raw):
    def converted(name, **options):
        convert(ConvertArguments(source="homedepot", input=str(raw), output=str(tmp_path / name), **options))
        return {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}

    assert converted("a") == converted("b")
    with pytest.raises(InputError, match="add --overwrite"):
        converted("a")
    assert converted("a", overwrite=True) == converted("b", overwrite=True)
    with pytest.raises(InputError, match="overlap"):
        converted("raw", overwrite=True)


def test_a_source_of_which_nothing_is_left_is_refused(tmp_path, raw):
    pq.write_table(pa.table({"query_id": ["other"], "text": ["x"]}), raw / "queries.parquet")
    reason = r"table judgements: --input .*raw has no rows for it: 2 rows dropped \(query: null in a required column\)"
    with pytest.raises(InputError, match=reason):
        convert(ConvertArguments(source="homedepot", input=str(raw), output=str(tmp_path / "logs")))
    assert not (tmp_path / "logs").exists()


def test_what_is_written_opens(tmp_path, raw):
    convert(ConvertArguments(source="homedepot", input=str(raw), output=str(tmp_path / "logs")))
    assert open_logs(tmp_path / "logs").names == {"documents", "judgements"}
