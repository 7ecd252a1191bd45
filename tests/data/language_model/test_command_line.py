"""Arguments of the program and the statuses it exits with."""

import json
import re
import signal
import subprocess
import sys
import tomllib

import pytest

from crops_jax.errors import InputError
from crops_jax.program import parse
from data.language_model.extra import PACKAGES
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


@pytest.mark.parametrize("name", ["openai", "pydantic", "tenacity"])
def test_a_missing_package_of_the_extra_is_named_before_anything_is_written(run, name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=f"needs the package {name}, which is not installed; run `make synthesize`"):
        run()
    assert not (tmp_path / "docs").exists()


def test_the_extra_of_the_project_is_what_is_checked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extra = project["project"]["optional-dependencies"]["synthesize"]
    assert tuple(re.match(r"[\w-]+", requirement)[0] for requirement in extra) == PACKAGES
    setup, tests = (
        set(re.findall(r"^([\w-]+)==", (ROOT / "requirements" / file).read_text(), re.MULTILINE))
        for file in ("main.txt", "dev.txt")
    )
    assert set(PACKAGES) <= tests
    assert "openai" not in setup


def test_without_the_extra_the_help_is_printed_and_a_run_ends_with_status_2(logs, tmp_path):
    script = "import runpy, sys; sys.modules['openai'] = None; runpy.run_module('data.synthesize', run_name='__main__')"
    flags = ["--logs", str(logs), "--output", str(tmp_path / "docs"), "--base-url", "http://h/v1", "--model", "m"]
    for arguments, status in ((["--help"], 0), (flags, 2)):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == status, done.stderr
    assert done.stderr.startswith("error: data.synthesize needs the package openai")
    assert "make synthesize" in done.stderr
    assert "Traceback" not in done.stderr


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
