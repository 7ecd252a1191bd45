"""The benchmark of interruptions reports what it measured also when one of its programs fails."""

import importlib
import json
import signal
import subprocess
import sys

import pytest

from benchmarks import interruptions
from benchmarks.interruptions import Failed, commands, end
from crops_jax import program
from tests.docs.programs import _function_of as function_of

KILLED = "import os, signal, sys; print(*range(9), sep='\\n', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)"


def started(code: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=pipe, text=True)


@pytest.mark.parametrize(
    ("code", "status", "last"),
    [
        (KILLED, -signal.SIGKILL, ["4", "5", "6", "7", "8"]),
        ("raise SystemExit('the disk is full')", 1, ["the disk is full"]),
        ("import sys; print('Traceback', file=sys.stderr)", 0, ["Traceback"]),
    ],
)
def test_a_program_that_fails_is_described(code, status, last):
    with pytest.raises(Failed) as failed:
        end(started(code), "after SIGTERM", expected={0, 3})
    assert vars(failed.value) == {"call": "after SIGTERM", "status": status, "messages": last}


def test_a_program_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(interruptions, "_PATIENCE_SECONDS", 0.2)
    process = started("import signal; signal.pause()")
    with pytest.raises(Failed) as failed:
        end(process, "without an interruption", expected={0})
    assert failed.value.status is None
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("status", [0, 3, -15])
def test_an_expected_status_is_returned(status):
    code = f"raise SystemExit({status})" if status >= 0 else f"import os; os.kill(os.getpid(), {-status})"
    assert end(started(code), "after SIGTERM", expected=interruptions._AFTER_SIGTERM) == status


@pytest.fixture
def work(tmp_path):
    """A folder of launch.pipeline, as far as the benchmark reads it."""
    steps = {}
    for module, given in [("data.hold_out", ["--logs", "logs"]), ("data.mine", ["--logs", "split"])]:
        command = ["python", "-m", module, *given, "--output", "out"]
        steps[module] = {"step": {"command": command}, "outcome": {}}
    (tmp_path / "steps.json").write_text(json.dumps(steps))
    return tmp_path


def test_a_program_that_is_killed_leaves_the_figures_of_the_others_and_status_4(work, monkeypatch, capsys):
    def measure(name, arguments, *, moments, folder):
        if name == "launch.report":
            raise Failed("after SIGTERM", -9, "reading\nKilled")
        return {"program": name, "arguments": len(arguments), "moments": moments}

    monkeypatch.setattr(interruptions, "measure", measure)
    names = ["data.simulate", "launch.report", "data.hold_out"]
    monkeypatch.setattr("sys.argv", ["interruptions", "--work", str(work), "--moments", "2", "--programs", *names])
    with pytest.raises(SystemExit) as ended:
        interruptions.main()
    assert ended.value.code == 4
    outcome = json.loads(capsys.readouterr().out)
    assert [one["program"] for one in outcome["programs"]] == ["data.simulate", "data.hold_out"]
    assert outcome["failed"] == [
        {"program": "launch.report", "call": "after SIGTERM", "status": -9, "messages": ["reading", "Killed"]}
    ]
    monkeypatch.setattr("sys.argv", ["interruptions", "--work", str(work), "--programs", "launch.nothing"])
    with pytest.raises(SystemExit) as ended:
        interruptions.main()
    assert ended.value.code == 2
    assert "--programs launch.nothing: known are data.hold_out, data.mine, " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["launch.train_discriminator", "launch.report", "data.simulate", "launch.export"])
def test_the_commands_are_those_that_the_programs_take(work, name):
    module, *given = commands(work)[name]
    function = getattr(importlib.import_module(module), function_of(module))
    assert program.parse(function, [*given, "--output", "out"]).output == "out"
