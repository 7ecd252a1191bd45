import json

import pytest

from crops_jax import artifacts
from crops_jax.errors import InputError
from launch.status import StatusArguments, status


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    config = {"training": {"steps": 100, "epochs": 1.0}, "data": {"queries_per_batch": 10}}
    (path / "config.json").write_text(json.dumps(config))
    artifacts.write_manifest(path, artifacts.new_manifest(program="launch.train", kind="run", arguments={}, inputs={}))
    return path


def write_lines(file, lines, *, torn=""):
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)


TIMES = {
    f"{part}_seconds_{name}": value
    for part in ("step", "input_wait")
    for name, value in {"min": 0.1, "median": 0.2, "max": 0.4, "process": 3}.items()
}


def line(step, speed):
    return {"step": step, "loss": 1 / step, "temperature": 0.05, "learning_rate": 1e-3, "examples_per_second": speed}


def test_a_run_under_way(run, capsys):
    write_lines(run / "metrics.jsonl", [line(10, 4.0), line(20, 5.0), line(30, 50.0)], torn='{"step": 40, "lo')
    write_lines(
        run / "goodput.jsonl",
        [
            {"event": "start", "step": 0, "seconds": 2.0, "compute_seconds": 0.0},
            {"seconds": 8.0, "compute_seconds": 7.0, "input_wait_seconds": 0.5, **TIMES},
        ],
        torn='{"seco',
    )
    found = status(StatusArguments(run=str(run)))
    assert found["step"] == 30
    assert found["steps"] == 100
    assert found["loss"] == pytest.approx(1 / 30)
    assert found["examples_per_second"] == 5.0
    assert found["seconds_left"] == 70 * 10 / 5.0
    assert (found["goodput"], found["input_wait"]) == (0.7, 0.05)
    assert {name: found[name] for name in TIMES} == TIMES
    assert found["last_checkpoint"] is None
    assert not found["finished"]
    assert "seconds left" in capsys.readouterr().err


def test_a_run_that_has_not_begun_to_log(run):
    found = status(StatusArguments(run=str(run)))
    assert (found["step"], found["loss"], found["seconds_left"], found["goodput"]) == (0, None, None, None)
    assert found["step_seconds_max"] is None


def test_steps_that_follow_from_epochs_are_those_that_training_named(run):
    (run / "config.json").write_text(
        json.dumps({"training": {"steps": 0, "epochs": 2.0}, "data": {"queries_per_batch": 10}})
    )
    assert status(StatusArguments(run=str(run)))["steps"] is None
    write_lines(run / "goodput.jsonl", [{"event": "start", "step": 0, "steps": 42, "seconds": 1.0}])
    assert status(StatusArguments(run=str(run)))["steps"] == 42


@pytest.mark.parametrize(
    ("kind", "config", "words"),
    [
        ("labels", "{}", "not a run"),
        ("run", "{", r"config.json: not JSON .*configuration"),
        ("run", "[]", r"config.json: expected a JSON object, found \[\]; check that it is the configuration of a run"),
        ("run", "{}", r"training.steps must be a whole number, found null; check that it is the configuration"),
    ],
)
def test_what_is_no_run_is_refused(run, kind, config, words):
    artifacts.write_manifest(run, artifacts.new_manifest(program="x", kind=kind, arguments={}, inputs={}))
    (run / "config.json").write_text(config)
    with pytest.raises(InputError, match=words):
        status(StatusArguments(run=str(run)))


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.json"):
        status(StatusArguments(run=str(tmp_path)))


@pytest.mark.parametrize(
    ("file", "changed", "words"),
    [
        ("metrics.jsonl", {"step": "x"}, 'step must be a number, found "x"; remove the line'),
        ("metrics.jsonl", {"loss": None}, "loss must be a number, found null"),
        ("metrics.jsonl", {"examples_per_second": [1]}, r"examples_per_second must be a number, found \[1\]"),
        ("goodput.jsonl", {"seconds": "1"}, 'seconds must be a number, found "1"'),
        ("goodput.jsonl", {"steps": True}, "steps must be a number, found true"),
        ("goodput.jsonl", {"step_seconds_min": {}}, "step_seconds_min must be a number, found {}"),
    ],
)
def test_a_line_with_something_other_than_a_number_is_named(run, file, changed, words):
    write_lines(run / "metrics.jsonl", [line(10, 4.0)])
    write_lines(run / file, [line(10, 4.0), {"step": 20} | changed])
    with pytest.raises(InputError, match=rf"{file}: {words}"):
        status(StatusArguments(run=str(run)))
