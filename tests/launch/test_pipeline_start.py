"""What a pipeline would find out after hours is said before its first step."""

import collections
import shutil
from pathlib import Path

import pytest

from crops_jax.errors import InputError, NamedFailure
from crops_jax.program import load_config
from launch.steps.arguments import PipelineArguments
from launch.steps.preflight import check_start
from tests.model_folders import write_bert, write_tokenizer

Usage = collections.namedtuple("Usage", "total used free")


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "documents.parquet").write_bytes(b"x" * 5000)
    monkeypatch.chdir(tmp_path)

    def given(config="minilm", sections=None, **changes):
        resolved = load_config(config).replace(**(sections or {}))
        return PipelineArguments(
            **{"logs": "logs", "output": "new/work", "from_time": "2026-01-05", "config": resolved} | changes
        )

    return given


def test_what_fits_is_accepted(arguments):
    write_bert(Path("folder"), max_positions=512)
    write_tokenizer(Path("tokens"))
    check_start(arguments(sections={"encoder": {"weights": "folder"}}, tokenizer="tokens"))
    assert not Path("new").exists()


def test_arms_that_start_from_random_weights_are_said(arguments, capsys):
    write_bert(Path("folder"), max_positions=512)
    for others in ({"sections": {"encoder": {"weights": "folder"}}}, {"warm_start": True}):
        check_start(arguments(**others))
        assert "random" not in capsys.readouterr().err
    check_start(arguments())
    assert "every arm starts from random weights; --encoder.weights names" in capsys.readouterr().err
    Path("new/work").mkdir(parents=True)
    check_start(arguments())  # a later call goes on with the same arms
    assert "random" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logs": "log"}, "--logs log: no such directory"),
        ({"from_time": "soon"}, "--from 'soon' is not an ISO 8601 time"),
        ({"sections": {"encoder": {"weights": "./nowhere"}}}, r"nowhere is no folder"),
        ({"sections": {"encoder": {"weights": "short"}}}, r"max_document_tokens must lie in \[3, .* found 128"),
        ({"tokenizer": "nowhere"}, "nowhere: no such tokenizer folder"),
        ({"tokenizer": "logs"}, "logs: no tokenizer that can be read"),
    ],
)
def test_what_a_later_step_would_refuse_is_refused(arguments, changes, message):
    write_bert(Path("short"))
    with pytest.raises(InputError, match=message):
        check_start(arguments(**changes))


def test_a_disk_without_room_for_the_split_is_named_unless_there_is_work_already(arguments, monkeypatch):
    asked = []

    def usage(path):
        asked.append(Path(path))
        return Usage(10_000, 5_001, 4_999)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(NamedFailure, match="MiB are free, and the split of logs alone takes about"):
        check_start(arguments())
    assert asked == [Path.cwd()]
    Path("new/work").mkdir(parents=True)
    check_start(arguments())
