"""The figures that are taken out of a work directory and out of outcome lines, and the command that stores them."""

import dataclasses
import json
import shutil

import pytest

from benchmarks.figures import __main__ as command
from benchmarks.figures.outcomes import outcome_lines, pipeline_values
from benchmarks.figures.results import FOLDER, FiguresError, read_result, write_result
from benchmarks.figures.speed import interruptions

FIGURE = {"value": 0.123456789, "low": 0.1, "high": 0.2, "queries": 7}


def metrics() -> dict:
    tests = {"ct": {"recall@100": FIGURE}}
    return {
        "documents": 9,
        "random": {"recall@100": 1.0},
        "tests": {"ct": {"queries": 7}},
        "systems": {"encoder": tests, "bm25": tests},
        "subsets": {name: {"unseen_pairs": tests} for name in ("encoder", "bm25")},
    }


def work_directory(folder):
    """What launch.pipeline leaves with the arm search_log, as far as figures are taken from it."""
    steps = {
        "mine search_log": {"outcome": {"by_source": {"search_log": 3}}},
        "train search_log": {"outcome": {"steps": 5}},
        "index and evaluate search_log": {"outcome": {}},
        "report": {"outcome": {"differences": []}},
    }
    for place in ("search_log/evaluation", "untrained/evaluation"):
        (folder / place).mkdir(parents=True)
        (folder / place / "metrics.json").write_text(json.dumps(metrics()))
    (folder / "search_log" / "run").mkdir()
    line = {"seconds": 4.0, "compute_seconds": 3.0, "input_wait_seconds": 1.0}
    (folder / "search_log" / "run" / "goodput.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(line)}\ntorn")
    (folder / "steps.json").write_text(json.dumps(steps))
    return folder


def test_a_work_directory_gives_its_systems_labels_and_shares_of_time(tmp_path):
    values = pipeline_values(work_directory(tmp_path))
    assert list(values["systems"]) == ["bm25", "search_log", "untrained"]
    assert values["systems"]["search_log"]["ct"]["recall@100"]["value"] == 0.123457
    assert values["labels"] == {"search_log": {"search_log": 3}}
    assert values["training"]["search_log"] == {"steps": 5, "seconds": 8.0, "compute": 0.75, "input_wait": 0.25}


def test_an_arm_that_shares_a_run_has_no_training_and_the_warm_start_has_one(tmp_path):
    work = work_directory(tmp_path)
    steps = json.loads((work / "steps.json").read_text())
    steps["mine cross_perspective"] = {"outcome": {"by_source": {"search_log": 3}}}
    steps["index and evaluate cross_perspective"] = {"outcome": {}}
    steps["train the warm start"] = {"outcome": {"steps": 8}}
    steps["report"]["outcome"]["shared_runs"] = {"cross_perspective": "search_log"}
    (work / "steps.json").write_text(json.dumps(steps))
    for name in ("cross_perspective", "warm_start"):
        shutil.copytree(work / "untrained", work / name)
    shutil.copytree(work / "search_log" / "run", work / "warm_start" / "run")
    values = pipeline_values(work)
    assert list(values["systems"]) == ["bm25", "search_log", "cross_perspective", "untrained", "warm_start"]
    assert {name: run["steps"] for name, run in values["training"].items()} == {"warm_start": 8, "search_log": 5}
    assert values["shared_runs"] == {"cross_perspective": "search_log"}


def test_an_unfinished_work_directory_is_refused(tmp_path):
    with pytest.raises(FiguresError, match="cannot be read"):
        pipeline_values(tmp_path)
    (tmp_path / "steps.json").write_text("{}")
    with pytest.raises(FiguresError, match="is not finished"):
        pipeline_values(tmp_path)


def test_programs_that_end_later_than_a_preemption_allows_are_marked():
    late = {"program": "b", "whole_seconds": 99.0, "most_seconds_to_end": 30.1, "statuses": [3, 0]}
    soon = late | {"program": "a", "most_seconds_to_end": 0.42, "statuses": [3, 3], "status_of_the_next_call": 0}
    killed = {"program": "c", "call": "without an interruption", "status": -9, "messages": []}
    outcome = {"aim_seconds": 30, "programs": [soon, late | {"status_of_the_next_call": None}]}
    outcome["failed"] = [killed, killed | {"program": "d", "call": "after SIGTERM", "status": None}]
    values = {"outcomes": [outcome]}
    rows = interruptions(dataclasses.replace(read_result("page_faults"), values=values)).splitlines()[2:]
    assert rows == [
        "| `a` | 99.0 | 0.4 | yes | 3, 3 | 0 |",
        "| `b` | 99.0 | 30.1 | no | 3, 0 | - |",
        "| `c` | - | - | - | -9 without an interruption | - |",
        "| `d` | - | - | - | no end after SIGTERM | - |",
    ]


def test_outcome_lines_are_the_json_objects_of_a_file(tmp_path):
    file = tmp_path / "outcomes"
    file.write_text('noise\n{"rate": 1.23456789}\n[1]\n{"rate": 2}\n')
    assert outcome_lines(file) == {"outcomes": [{"rate": 1.23457}, {"rate": 2}]}
    file.write_text("noise\n")
    with pytest.raises(FiguresError, match="holds no outcome line"):
        outcome_lines(file)
    with pytest.raises(FiguresError, match="nowhere: "):
        outcome_lines(tmp_path / "nowhere")


def call(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks.figures", *arguments])
    command.main()


def test_a_new_result_needs_title_and_command_and_keeps_them_when_it_is_stored_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "result_file", lambda name: tmp_path / f"{name}.json")
    monkeypatch.setattr(command, "read_result", lambda name: read_result(name, folder=tmp_path))
    monkeypatch.setattr(command, "write_result", lambda name, result: write_result(name, result, folder=tmp_path))
    outcomes = tmp_path / "outcomes"
    outcomes.write_text('{"rate": 1}\n')
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, "store", "rates", "--from", str(outcomes))
    assert ended.value.code == 2
    assert "give it a --title" in capsys.readouterr().err
    given = ["--title", "rates", "--command", "python -m rates", "--remark", "Once."]
    call(monkeypatch, "store", "rates", "--from", str(outcomes), *given)
    assert read_result("rates", folder=tmp_path).remarks == ("Once.",)
    outcomes.write_text('{"rate": 2}\n')
    call(monkeypatch, "store", "rates", "--from", str(outcomes))
    again = read_result("rates", folder=tmp_path)
    assert (again.title, again.commands, again.remarks) == ("rates", ("python -m rates",), ())
    assert again.values == {"outcomes": [{"rate": 2}]}
    assert not (FOLDER / "rates.json").exists()
