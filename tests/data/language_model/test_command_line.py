"""Arguments of the program and the statuses it exits with."""

import json
import signal
import subprocess
import sys

import pytest

from crops_jax.errors import InputError
from crops_jax.program import parse
from data.synthesize import synthesize
from tests.paths import ROOT

pytest.importorskip("openai", reason="openai is not installed")
pytest.importorskip("pydantic", reason="pydantic is not installed")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"base_url": "localhost"}, "not an http"),
        ({"base_url": "http://me:secret@localhost/v1"}, "environment variable"),
        ({"base_url": "http://localhost/v1?key=secret"}, "environment variable"),
        ({"concurrency": 0}, "--concurrency 0 must be at least 1"),
        ({"alpha": 2.0}, "--alpha 2.0 is not between"),
        ({"max_spend": 1.0}, "needs --prompt-price"),
        ({"temperature": float("nan")}, "--temperature nan"),
        ({"requests_per_minute": 0.0}, "--requests-per-minute"),
        ({"model": " "}, "--model is empty"),
        ({"discriminator": "/nowhere"}, "/nowhere"),
    ],
)
def test_wrong_arguments_are_named(run, given, message, tmp_path):
    with pytest.raises(InputError, match=message) as raised:
        run(**given)
    assert "secret" not in str(raised.value)
    assert not (tmp_path / "docs").exists()


def test_help_and_command_line(capsys):
    flags = "--logs a --output b --base-url http://h/v1 --model m --max-spend 3 --temperature None --zero-shot"
    arguments = parse(synthesize, flags.split())
    assert (arguments.max_spend, arguments.temperature, arguments.zero_shot) == (3.0, None, True)


def test_exit_statuses_of_the_program(server, logs, tmp_path):
    command = [sys.executable, "-m", "data.synthesize", "--logs", str(logs), "--output", str(tmp_path / "docs")]
    command += ["--base-url", server.url, "--model", "writer", "--concurrency", "1"]
    answers, started = server.behave, []

    def behave(number, body):
        if number == 1:
            started[0].send_signal(signal.SIGTERM)
        return answers(number, body)

    server.behave = behave
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        started.append(process)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (3, "")
    assert "Traceback" not in err
    server.behave = answers
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert (outcome["written"], outcome["cached"] >= 1, len(server.requests)) == (4, True, 4)
